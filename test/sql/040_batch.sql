-- send_batch and publish_batch: one call, one order, all or nothing, errors that name the element.
BEGIN;
\ir helpers.psql
SELECT plan(100);

-- send_batch: ids in the order of the array, which is the order of positions.
CREATE TEMP TABLE sent AS SELECT id, n FROM herald.send_batch('[
    {"sender": "pm", "recipient": "dev", "content": "one"},
    {"sender": "pm", "recipient": null, "content": "two", "workspace": "w"},
    {"sender": "pm", "content": "three"},
    {"topic": "plan", "payload": {"n": 4}},
    {"topic": "plan", "payload": null, "sender": "pm"},
    {"sender": "pm", "recipient": "dev", "content": "six", "message_type": "command", "metadata": {"a": 1},
     "conversation": "c", "topic": "plan", "workspace": "w", "reply_to": "01980000-0000-7000-8000-00000000002a",
     "priority": 7, "ordering_key": "o", "deliver_at": null, "ttl": "1 hour", "idempotency_key": "k"}]')
    WITH ORDINALITY AS b(id, n);
SELECT is((SELECT count(*) FROM sent), 6::bigint, 'an id for every message');
SELECT is((SELECT string_agg(m.content, ',' ORDER BY n) FROM sent JOIN herald.messages m USING (id)),
    'one,two,three,{"n": 4},null,six', 'ids come in the order of the array');
SELECT is((SELECT array_agg(n ORDER BY m.pos) FROM sent JOIN herald.messages m USING (id)), ARRAY[1, 2, 3, 4, 5, 6]::bigint[],
    'positions follow the array');
SELECT is((SELECT string_agg(m.topic, ',' ORDER BY n) FROM sent JOIN herald.messages m USING (id)),
    'agent:dev:inbox,workspace:w,broadcast,plan,plan,plan', 'each goes where send_message would put it');
SELECT is((SELECT string_agg(m.is_json::text, ',' ORDER BY n) FROM sent JOIN herald.messages m USING (id)),
    'false,false,false,true,true,false', 'payload makes JSON');
SELECT is((SELECT (message_type, metadata, conversation, topic, workspace, reply_to, priority, ordering_key,
                   expires_at - at, idempotency_key)::text FROM sent JOIN herald.messages m USING (id) WHERE n = 6),
    ROW('command', '{"a": 1}'::jsonb, 'c', 'plan', 'w', '01980000-0000-7000-8000-00000000002a'::uuid, 7::smallint, 'o',
        interval '1 hour', 'k')::text, 'every key is stored');
SELECT is((SELECT message_type || priority FROM sent JOIN herald.messages m USING (id) WHERE n = 1), 'notification0',
    'defaults as in send_message');
SELECT is_empty($$ SELECT herald.send_batch('[]') $$, 'an empty batch is no messages');

-- The limit.
SELECT is((SELECT count(DISTINCT id) FROM herald.send_batch((SELECT jsonb_agg(jsonb_build_object('sender', 's',
    'topic', 'bulk', 'content', n::text)) FROM generate_series(1, 10000) n)) AS b(id)), 10000::bigint,
    '10,000 messages are one batch');
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'bulk'),
    (SELECT array_agg(n) FROM generate_series(1, 10000) n), 'all stored, in order');
SELECT t.fails($$ SELECT herald.send_batch((SELECT jsonb_agg(jsonb_build_object('sender', 's', 'content', 'c', 'topic', 'bulk'))
    FROM generate_series(1, 10001) n)) $$, '54000', '10,?001', 'send_batch: 10,001 messages are too many');
SELECT is((SELECT count(DISTINCT id) FROM herald.publish_batch('pbulk',
    (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 10000) n)) AS b(id)), 10000::bigint, '10,000 payloads');
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'pbulk'),
    (SELECT array_agg(n) FROM generate_series(1, 10000) n), 'all stored, in order');
SELECT t.fails($$ SELECT herald.publish_batch('pbulk', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 10001) n)) $$,
    '54000', '10,?001', 'publish_batch: 10,001 payloads are too many');

-- The whole argument is wrong.
SELECT t.fails($$ SELECT herald.send_batch(NULL) $$, '22004', 'messages', 'NULL batch');
SELECT t.fails($$ SELECT herald.send_batch('{"sender": "s", "content": "c"}') $$, '22023', 'array', 'an object');
SELECT t.fails($$ SELECT herald.send_batch('"text"') $$, '22023', 'array', 'a string');
SELECT t.fails($$ SELECT herald.send_batch('null') $$, '22023', 'array', 'JSON null');
SELECT t.fails($$ SELECT herald.send_batch('[') $$, '22P02', 'json', 'not JSON', hinted => false);

-- One element is wrong, the third (index 2): nothing of the batch is stored, and the error says
-- which it was, in its message or its context.
CREATE FUNCTION pg_temp.batch_of(third text) RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT herald.send_batch(%L)', '[{"sender": "s", "content": "1"}, {"sender": "s", "content": "2"}, '
        || third || ', {"sender": "s", "content": "4"}]') $$;
CREATE TEMP TABLE bad (element text, state text, names text, description text);
INSERT INTO bad VALUES
    ('7', '22023', '', 'an element that is a number'),
    ('null', '22023', '', 'an element that is null'),
    ('[]', '22023', '', 'an element that is an array'),
    ('{"sender": "s"}', '22004', 'content', 'no content'),
    ('{}', '22004', 'content', 'an empty object'),
    ('{"sender": "s", "content": null}', '22004', 'content', 'content is null'),
    ('{"sender": "s", "content": 5}', '22023', 'content', 'content is a number'),
    ('{"sender": "s", "content": {"a": 1}}', '22023', 'content', 'content is an object'),
    ('{"sender": 5, "content": "c"}', '22023', 'sender', 'sender is a number'),
    ('{"sender": "s", "content": "c", "recipient": ["a"]}', '22023', 'recipient', 'recipient is an array'),
    ('{"sender": "s", "content": "c", "topic": true}', '22023', 'topic', 'topic is true'),
    ('{"sender": "s", "content": "c", "contents": "c"}', '22023', 'contents', 'an unknown key'),
    ('{"sender": "s", "content": "c", "Topic": "c"}', '22023', 'Topic', 'a key in the wrong case'),
    ('{"sender": "s", "content": "c", "priority": "high"}', '22023', 'priority', 'priority is text'),
    ('{"sender": "s", "content": "c", "priority": 1.5}', '22023', 'priority', 'priority is a fraction'),
    ('{"sender": "s", "content": "c", "priority": 10}', '22023', 'priority', 'priority 10'),
    ('{"sender": "s", "content": "c", "priority": 1e30}', '22023', 'priority', 'priority beyond int'),
    ('{"sender": "s", "content": "c", "metadata": []}', '22023', 'metadata', 'metadata is an array'),
    ('{"sender": "s", "content": "c", "metadata": "x"}', '22023', 'metadata', 'metadata is text'),
    ('{"sender": "s", "content": "c", "ttl": "-1 s"}', '22023', '', 'ttl in the past'),
    ('{"sender": "s", "content": "c", "ttl": "soon"}', '22023', 'ttl', 'ttl is no interval'),
    ('{"sender": "s", "content": "c", "ttl": 5}', '22023', 'ttl', 'ttl is a number'),
    ('{"sender": "s", "content": "c", "reply_to": "42"}', '22023', 'reply_to', 'reply_to is no UUID'),
    ('{"sender": "s", "content": "c", "reply_to": 42}', '22023', 'reply_to', 'reply_to is a number'),
    ('{"sender": "s", "content": "c", "topic": "a*"}', '22023', '', 'a bad topic'),
    ('{"sender": "s", "content": "c", "topic": "herald:x"}', '42939', '', 'a reserved topic'),
    ('{"payload": {}}', '22004', 'topic', 'payload without topic'),
    ('{"topic": "a", "payload": 1, "content": "c"}', '22023', '', 'payload and content'),
    ('{"sender": "s", "content": "c", "deliver_at": 5}', '22023', 'deliver_at', 'deliver_at is a number');
SELECT t.fails(pg_temp.batch_of(element), state, names, description) FROM bad;
SELECT ok(e.message || ' ' || e.context ~ '(messages|element)\W*2\M', 'the index of: ' || description)
FROM bad, t.error_of(pg_temp.batch_of(element)) e;


-- The same idempotency key twice in one batch is one message.
CREATE TEMP TABLE twice AS SELECT id, n FROM herald.send_batch('[
    {"sender": "s", "content": "first", "topic": "t", "idempotency_key": "twice"},
    {"sender": "s", "content": "between", "topic": "t"},
    {"sender": "s", "content": "second", "topic": "t", "idempotency_key": "twice"}]') WITH ORDINALITY AS b(id, n);
SELECT is((SELECT string_agg(content, ',' ORDER BY pos) FROM herald.messages WHERE topic = 't'), 'first,between',
    'a repeated key in one batch stores one message');
SELECT is((SELECT id FROM twice WHERE n = 3), (SELECT id FROM twice WHERE n = 1), 'and its id comes back twice');
SELECT is((SELECT string_agg(m.content, ',' ORDER BY pos) FROM herald.send_batch('[
    {"sender": "s", "content": "again", "topic": "t", "idempotency_key": "twice"}]') AS b(id) JOIN herald.messages m USING (id)),
    'first', 'and once more in a later batch');

-- publish_batch.
CREATE TEMP TABLE published AS SELECT id, n FROM herald.publish_batch('events',
    ARRAY['1', 'null', '{"a": [true]}']::jsonb[], message_type => 'event', conversation => 'c', sender => 's')
    WITH ORDINALITY AS b(id, n);
SELECT is((SELECT string_agg(m.content, ',' ORDER BY n) FROM published JOIN herald.messages m USING (id)),
    '1,null,{"a": [true]}', 'payloads in the order of the array');
SELECT is((SELECT array_agg(n ORDER BY m.pos) FROM published JOIN herald.messages m USING (id)), ARRAY[1, 2, 3]::bigint[],
    'positions too');
SELECT is((SELECT DISTINCT (topic, message_type, conversation, sender, is_json)::text FROM published JOIN herald.messages m USING (id)),
    '(events,event,c,s,t)', 'every message has the options');
SELECT is_empty($$ SELECT herald.publish_batch('events', '{}') $$, 'an empty array is no messages');
SELECT t.fails($$ SELECT herald.publish_batch(NULL, ARRAY['1']::jsonb[]) $$, '22004', 'topic', 'NULL topic');
SELECT t.fails($$ SELECT herald.publish_batch('events', NULL) $$, '22004', 'payloads', 'NULL payloads');
SELECT t.fails($$ SELECT herald.publish_batch('events', ARRAY['1', '2', NULL]::jsonb[]) $$, '22004', '(2|3)',
    'a NULL payload is named by its index');
SELECT t.fails($$ SELECT herald.publish_batch('a?', ARRAY['1']::jsonb[]) $$, '22023', 'a\?', 'bad topic');
SELECT t.fails($$ SELECT herald.publish_batch('herald', ARRAY['1']::jsonb[]) $$, '42939', 'herald', 'reserved topic');
SELECT t.fails($$ SELECT herald.publish_batch('a', ARRAY['1']::jsonb[], sender => repeat('s', 201)) $$, '22001', 'sender',
    'long sender');
SELECT t.fails($$ SELECT herald.publish_batch('a', ARRAY['1']::jsonb[], conversation => repeat('s', 201)) $$, '22001',
    'conversation', 'long conversation');
SELECT t.fails($$ SELECT herald.publish_batch('a', ARRAY['1']::jsonb[], message_type => repeat('s', 201)) $$, '22001',
    'message_type', 'long message_type');

-- send_object: one element; its errors speak of no index.
SELECT is((SELECT content || is_json FROM herald.message_by_id(
    herald.send_object('{"topic": "plan", "payload": [1]}'))), '[1]true', 'an object is sent');
SELECT is(herald.send_object('{"topic": "o", "content": "x", "idempotency_key": "k"}'),
    herald.send_object('{"topic": "o", "content": "y", "idempotency_key": "k"}'), 'its key is respected');
SELECT t.fails($$ SELECT herald.send_object(NULL) $$, '22004', '^message is NULL', 'NULL object');
SELECT t.fails($$ SELECT herald.send_object('[]') $$, '22023', '^message is not', 'no object');
SELECT t.fails($$ SELECT herald.send_object('{"topic": 1}') $$, '22023', '^topic must be a string', 'wrong type');
SELECT t.fails($$ SELECT herald.send_object('{"topic": "o", "content": "x", "ttl": "soon"}') $$, '22023',
    '^ttl must be', 'bad interval');
SELECT t.fails($$ SELECT herald.send_object('{"topic": "o"}') $$, '22004', '^content is missing', 'no content');
SELECT t.fails($$ SELECT herald.send_object('{"topic": "o", "content": "x", "colour": 1}') $$, '22023',
    'the message has "colour"', 'unknown member');

SELECT * FROM finish();
ROLLBACK;
