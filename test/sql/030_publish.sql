-- publish: any JSON on a topic, stored as JSON text and put into the envelope as it is.
BEGIN;
\ir helpers.psql
SELECT plan(37);

CREATE TEMP TABLE one AS SELECT r.* FROM t.row(herald.publish('orders', '{"n": 1, "tags": ["a", null]}')) r;
SELECT is((SELECT topic FROM one), 'orders', 'topic');
SELECT is((SELECT content::jsonb FROM one), '{"n": 1, "tags": ["a", null]}'::jsonb, 'content is the JSON text');
SELECT is((SELECT is_json FROM one), true, 'is_json');
SELECT is((SELECT message_type FROM one), 'notification', 'type: notification');
SELECT ok((SELECT sender IS NULL AND recipient IS NULL AND metadata IS NULL AND workspace IS NULL FROM one),
    'no sender or recipient needed');

-- Every kind of JSON, and it is the value itself in the envelope.
SELECT is((herald.envelope(t.row(herald.publish('kinds', v::jsonb))) -> 'content')::jsonb, v::jsonb, 'payload ' || v)
FROM unnest(ARRAY['null', 'true', '0', '-1.5e300', '123456789012345678901234567890.123', '""', '"text \u00e9 \" \n"',
    '[]', '{}', '[1,[2,[3]]]', '{"a":{"b":null}}']) v;

CREATE TEMP TABLE full_one AS SELECT r.* FROM t.row(herald.publish(topic => 'orders', payload => '[1]', message_type => 'event',
    metadata => '{"m": 1}', conversation => 'c', reply_to => (SELECT id FROM one), priority => 3, ordering_key => 'o',
    ttl => '1 day', idempotency_key => 'k', sender => 's', recipient => 'r')) r;
SELECT is((SELECT (message_type, metadata, conversation, reply_to, priority, ordering_key, expires_at - at,
                   idempotency_key, sender, recipient)::text FROM full_one),
    (SELECT ('event', '{"m": 1}'::jsonb, 'c', id, 3, 'o', interval '1 day', 'k', 's', 'r')::text FROM one),
    'every option is stored');
SELECT is((SELECT topic FROM full_one), 'orders', 'a recipient does not change the topic');

SELECT t.fails($$ SELECT herald.publish(NULL, '{}') $$, '22004', 'topic', 'NULL topic');
SELECT t.fails($$ SELECT herald.publish('a', NULL) $$, '22004', 'payload', 'NULL payload');
SELECT t.fails($$ SELECT herald.publish('', '{}') $$, '22023', 'topic', 'empty topic');
SELECT t.fails($$ SELECT herald.publish('a?', '{}') $$, '22023', 'a\?', 'pattern as topic');
SELECT t.fails($$ SELECT herald.publish('herald:x', '{}') $$, '42939', 'herald:x', 'reserved topic');
SELECT t.fails($$ SELECT herald.publish('a', '{}', priority => 10) $$, '22023', 'priority.*10', 'priority 10');
SELECT t.fails($$ SELECT herald.publish('a', '{}', metadata => '[]') $$, '22023', 'metadata', 'metadata is an array');
SELECT t.fails($$ SELECT herald.publish('a', '{}', ttl => '-1 day') $$, '22023', 'expire|ttl', 'ttl in the past');
SELECT t.fails($$ SELECT herald.publish('a', '{}', sender => repeat('s', 201)) $$, '22001', 'sender', 'long sender');
SELECT t.fails($$ SELECT herald.publish('a', '{}', recipient => repeat('s', 201)) $$, '22001', 'recipient', 'long recipient');
SELECT t.fails($$ SELECT herald.publish('a', '{}', message_type => repeat('s', 201)) $$, '22001', 'message_type', 'long type');
SELECT t.fails($$ SELECT herald.publish('a', '{}', conversation => repeat('s', 201)) $$, '22001', 'conversation', 'long conversation');
SELECT t.fails($$ SELECT herald.publish('a', '{}', ordering_key => repeat('s', 201)) $$, '22001', 'ordering_key', 'long ordering_key');
SELECT t.fails($$ SELECT herald.publish('a', '{}', idempotency_key => repeat('s', 201)) $$, '22001', 'idempotency_key', 'long key');
SELECT t.fails($$ SELECT herald.publish('a', '{invalid') $$, '22P02', 'json', 'payload that is not JSON', hinted => false);

-- A publisher and a sender meet in one topic, in one order.
SELECT herald.publish('mixed', '1') \g /dev/null
SELECT herald.send_message('pm', NULL, '2', topic => 'mixed') \g /dev/null
SELECT herald.publish('mixed', '3') \g /dev/null
SELECT is((SELECT string_agg(content || is_json::text, ',' ORDER BY pos) FROM herald.messages WHERE topic = 'mixed'),
    '1true,2false,3true', 'text and JSON live in one topic');
SELECT is((SELECT string_agg(herald.envelope(m) ->> 'content', ',' ORDER BY pos) FROM herald.messages m WHERE topic = 'mixed'),
    '1,2,3', 'in one order');
SELECT is((SELECT string_agg(json_typeof(herald.envelope(m) -> 'content'), ',' ORDER BY pos) FROM herald.messages m
           WHERE topic = 'mixed'), 'number,string,number', 'each in its own form');
SELECT is((SELECT count(*) FROM herald.topics WHERE name = 'mixed'), 1::bigint, 'one topic');

SELECT * FROM finish();
ROLLBACK;
