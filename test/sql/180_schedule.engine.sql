-- deliver_at and cancel: a message with a time waits outside the log and enters it when it is due.
-- What has to come is waited for with herald.wait_for.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(98);

SELECT date_trunc('milliseconds', now()) + interval '1 hour' AS later \gset

-- Whether all of a topic's messages that were scheduled have arrived; gives what is in the log.
CREATE FUNCTION t.arrived(topic text, wanted int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := 0;
    got int := 0;
    page int;
BEGIN
    WHILE got < wanted LOOP
        SELECT count(*), coalesce(max(pos), seen) INTO page, seen FROM herald.wait_for(topic, seen, '30 seconds');
        EXIT WHEN page = 0;
        got := got + page;
    END LOOP;
    RETURN t.contents(topic, 0, 10000);
END $$;

-- Stored, outside the log, with everything.
SELECT herald.send_message('pm', 'dev', 'all', 'command', '{"k": [1]}', 'run-9', 's:1', 'w', '01980000-0000-7000-8000-000000000001',
    9, 'order-1', :'later', '1 second', 'key-1') AS id \gset
SELECT is((SELECT (deliver_at = :'later', topic, sender, recipient, message_type, content, metadata, conversation, reply_to, priority,
                   ordering_key, expires_at = :'later'::timestamptz + interval '1 second', workspace, idempotency_key, is_json)::text
           FROM herald.scheduled WHERE id = :'id'),
    '(t,s:1,pm,dev,command,all,"{""k"": [1]}",run-9,01980000-0000-7000-8000-000000000001,9,order-1,t,w,key-1,f)',
    'send_message: waits with every field; its ttl counts from deliver_at');
SELECT ok((SELECT at BETWEEN now() - interval '1 minute' AND clock_timestamp() FROM herald.scheduled), 'and when it was sent');
SELECT ok(:'id'::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7', 'the id is a UUIDv7');
SELECT is_empty('SELECT * FROM herald.message', 'it is not in the log');
SELECT is_empty(format('SELECT * FROM herald.message_by_id(%L)', :'id'), 'nor found by its id');
SELECT is_empty($$ SELECT * FROM herald.conversation('run-9') $$, 'nor in its conversation');
SELECT is_empty($$ SELECT * FROM herald.topics $$, 'nor does its topic exist');
SELECT t.fails(format('SELECT herald.reply(%L, ''too soon'')', :'id'), 'P0002', :'id', 'it cannot be replied to yet');
SELECT is((SELECT next_delivery FROM herald.engine), :'later', 'herald.engine says when the next is due');

SELECT herald.publish('s:1', '{"n": 1}', deliver_at => :'later', sender => 's', ttl => '1 hour') AS id \gset
SELECT is((SELECT (topic, content, is_json, expires_at - deliver_at)::text FROM herald.scheduled WHERE id = :'id'),
    '(s:1,"{""n"": 1}",t,01:00:00)', 'publish');
SELECT herald.send_message('pm', 'dev', 'question?', conversation => 'run') AS question \gset
SELECT herald.reply(:'question', 'answer', deliver_at => :'later') AS id \gset
SELECT is((SELECT (topic, sender, recipient, content, conversation, reply_to = :'question')::text FROM herald.scheduled WHERE id = :'id'),
    '(agent:pm:inbox,dev,pm,answer,run,t)', 'reply');
SELECT herald.send_object(jsonb_build_object('topic', 's:1', 'content', 'object', 'deliver_at', :'later')) AS id \gset
SELECT is((SELECT (topic, content, deliver_at = :'later')::text FROM herald.scheduled WHERE id = :'id'), '(s:1,object,t)', 'send_object');
CREATE TEMP TABLE batch AS SELECT id, n FROM herald.send_batch(jsonb_build_array(
    jsonb_build_object('topic', 's:2', 'content', 'now'),
    jsonb_build_object('topic', 's:2', 'content', 'later', 'deliver_at', :'later'),
    jsonb_build_object('topic', 's:2', 'payload', 3, 'deliver_at', :'later'),
    jsonb_build_object('topic', 's:2', 'content', 'past', 'deliver_at', '2001-02-03T04:05:06Z'))) WITH ORDINALITY AS b(id, n);
SELECT is(t.contents('s:2'), 'now,past', 'send_batch: what has no time, or one in the past, is sent');
SELECT is((SELECT string_agg(s.content, ',' ORDER BY b.n) FROM batch b JOIN herald.scheduled s USING (id)), 'later,3', 'the others wait');
SELECT is((SELECT string_agg(m.content, ',' ORDER BY b.n) FROM batch b JOIN herald.messages m USING (id)), 'now,past', 'ids in order');
SELECT is((SELECT count(*) FROM herald.scheduled), 6::bigint, 'all that waits');
SELECT is((SELECT count(*) FROM herald.send_batch((SELECT jsonb_agg(jsonb_build_object('topic', 's:3', 'content', n::text, 'deliver_at', :'later'))
    FROM generate_series(1, 10000) n))), 10000::bigint, 'a batch of 10,000');
SELECT is((SELECT count(*) FROM herald.scheduled WHERE topic = 's:3'), 10000::bigint, 'all wait');
SELECT is((SELECT count(*) FILTER (WHERE herald.cancel(id)) FROM herald.scheduled WHERE topic = 's:3'), 10000::bigint, 'and are cancelled');
SELECT is((SELECT count(*) FROM herald.scheduled), 6::bigint, 'the others wait on');

-- Now and before is now.
SELECT herald.send_message('s', NULL, 'past', topic => 'p', deliver_at => now() - interval '1 day', ttl => '1 hour') AS id \gset
SELECT is((SELECT expires_at - at FROM herald.messages WHERE id = :'id'), interval '1 hour', 'deliver_at in the past: now; ttl from now on');
SELECT ok((SELECT at >= now() - interval '1 minute' FROM herald.messages WHERE id = :'id'), 'at is the time of the send');
SELECT isnt(herald.publish('p', '1', deliver_at => clock_timestamp()), NULL, 'publish: now');
SELECT isnt(herald.reply(:'question', 'at once', deliver_at => '4000-01-01 BC'), NULL, 'reply: long ago');
SELECT is(t.contents('p'), 'past,1', 'they are read');

-- What is no time.
SELECT t.fails(format('SELECT herald.send_message(''s'', ''r'', ''c'', deliver_at => %L)', at), '22023', 'deliver_at', 'send_message: ' || at)
FROM unnest(ARRAY['infinity', '-infinity']) at;
SELECT t.fails($$ SELECT herald.publish('a', '1', deliver_at => 'infinity') $$, '22023', 'deliver_at', 'publish: infinity');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', deliver_at => ''infinity'')', :'question'), '22023', 'deliver_at', 'reply: infinity');
SELECT t.fails(format($$ SELECT herald.send_batch('[{"topic": "a", "content": "1"}, {"topic": "a", "content": "2", "deliver_at": %s}]') $$, at),
    '22023', 'deliver_at', 'send_batch: ' || at) FROM unnest(ARRAY['"soon"', '""', '"infinity"', '"-infinity"', '5', '{}', 'true', '"2026-13-01"']) at;
SELECT ok(e.message || ' ' || e.context ~ '(messages|element)\W*1\M', 'send_batch names the element') FROM t.error_of($$
    SELECT herald.send_batch('[{"topic": "a", "content": "1"}, {"topic": "a", "content": "2", "deliver_at": "soon"}]') $$) e;
SELECT t.fails($$ SELECT herald.send_object('{"topic": "a", "content": "1", "deliver_at": "soon"}') $$, '22023', '^deliver_at', 'send_object: soon');

-- A scheduled message is checked when it is sent, not when it is due.
SELECT t.fails(format('SELECT herald.send_message(%s, deliver_at => %L)', arguments, :'later'), state, message, what)
FROM (VALUES ('''s'', ''r'', NULL', '22004', 'content', 'NULL content'), ('''s'', ''r*'', ''c''', '22023', 'r\*', 'a bad topic'),
    ('''s'', NULL, ''c'', topic => ''herald:x''', '42939', 'herald:x', 'a reserved topic'),
    ('''s'', ''r'', ''c'', priority => 10', '22023', 'priority', 'priority 10'), ('''s'', ''r'', ''c'', metadata => ''[]''', '22023', 'metadata', 'metadata'),
    ('''s'', ''r'', ''c'', ttl => ''0''', '22023', 'expire|ttl', 'ttl zero'),
    ('''s'', ''r'', ''c'', ttl => ''-1 minute''', '22023', 'expire|ttl', 'a ttl that is over before deliver_at'), ('''s'', ''r'', ''c'', ttl => ''-2 hours''', '22023', 'expire|ttl', 'a negative ttl'),
    ('repeat(''s'', 201), ''r'', ''c''', '22001', 'sender', 'a long sender')) AS bad(arguments, state, message, what);
SELECT is((SELECT count(*) FROM herald.scheduled), 6::bigint, 'none of these waits');
BEGIN READ ONLY;
SELECT throws_ok(format('SELECT herald.send_message(''s'', ''r'', ''c'', deliver_at => %L)', :'later'), '25006', NULL, 'not in a read only transaction');
SELECT throws_ok(format('SELECT herald.cancel(%L)', :'id'), '25006', NULL, 'nor cancel');
COMMIT;

-- Rolled back, it never was.
BEGIN;
SELECT herald.send_message('s', NULL, 'undone', topic => 'r', deliver_at => clock_timestamp() + interval '1 millisecond') \g /dev/null
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'undone too', topic => 'r', deliver_at => clock_timestamp() + interval '1 millisecond') \g /dev/null
ROLLBACK TO s;
SELECT herald.send_message('s', NULL, 'kept', topic => 'r', deliver_at => clock_timestamp() + interval '1 millisecond') AS kept \gset
SELECT is(t.shown('r'), '', 'nothing is delivered before the commit');
COMMIT;
SELECT is(t.arrived('r', 1), 'kept', 'what was not rolled back arrives');
SELECT is((SELECT id FROM herald.read('r')), :'kept', 'with the id that its sender was told');
SELECT is_empty($$ SELECT FROM herald.scheduled WHERE topic = 'r' $$, 'and waits no longer');

-- It arrives whole.
SELECT clock_timestamp() + interval '1 second' AS soon \gset
SELECT herald.send_message('pm', 'dev', E'é\n', 'command', '{"k": [1]}', 'run-8', 'w:1', 'w', '01980000-0000-7000-8000-000000000001',
    9, 'order-1', :'soon', '1 hour', 'key-1') AS id \gset
SELECT herald.publish('w:2', '{"b": [null]}', 'event', deliver_at => :'soon') AS json_id \gset
SELECT is(t.arrived('w:1', 1), E'é\n', 'when it is due it arrives');
SELECT is((SELECT (id = :'id', topic, sender, recipient, message_type, content, metadata, conversation, reply_to, priority,
                   ordering_key, expires_at = :'soon'::timestamptz + interval '1 hour', workspace, idempotency_key, is_json)::text
           FROM herald.read('w:1')),
    format('(t,w:1,pm,dev,command,"%s","{""k"": [1]}",run-8,01980000-0000-7000-8000-000000000001,9,order-1,t,w,key-1,f)', E'é\n'),
    'with every field');
SELECT ok((SELECT at >= :'soon' FROM herald.read('w:1')), 'not before its time; at is when it entered the log');
SELECT is(t.arrived('w:2', 1), '{"b": [null]}', 'JSON');
SELECT is((SELECT is_json FROM herald.message_by_id(:'json_id')), true, 'stays JSON');
SELECT herald.reply(:'id', 'answer') \g /dev/null
SELECT is((SELECT string_agg(content, ',') FROM herald.conversation('run-8')), E'é\n,answer', 'once here it is a message like any other');

-- In the order of their times, and of their ids where these are equal; however many.
BEGIN;
CREATE TEMP TABLE due AS
    SELECT n, at, herald.send_message('s', NULL, n::text, topic => 'due', deliver_at => at) AS id
    FROM (SELECT n, clock_timestamp() + interval '1 second' + (n * 7919 % 1000) * interval '1 microsecond' AS at
          FROM generate_series(1, 2500) n) x;
COMMIT;
SELECT isnt(t.arrived('due', 2500), '', 'many are due at nearly the same time');
SELECT is((SELECT count(*) FROM herald.read('due', 0, 10000)), 2500::bigint, 'all arrive, each once');
SELECT is((SELECT array_agg(id ORDER BY pos) FROM herald.messages WHERE topic = 'due'), (SELECT array_agg(id ORDER BY at, id) FROM due),
    'by deliver_at, then by id');
BEGIN;
SELECT clock_timestamp() + interval '3 seconds' AS same \gset
SELECT herald.send_message('s', NULL, n::text, topic => 'same', deliver_at => :'same') FROM generate_series(1, 200) n \g /dev/null
COMMIT;
SELECT t.arrived('same', 200) \g /dev/null
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'same'),
    (SELECT array_agg(content::int ORDER BY id) FROM herald.messages WHERE topic = 'same'), 'the same time: by id');

-- An earlier one that comes later is not kept waiting by what was scheduled before.
SELECT herald.send_message('s', NULL, 'sooner', topic => 'sooner', deliver_at => clock_timestamp() + interval '10 milliseconds') \g /dev/null
SELECT is(t.arrived('sooner', 1), 'sooner', 'one that is due before all others');
SELECT is((SELECT count(*) FROM herald.scheduled), 6::bigint, 'the others wait on');
SELECT ok((SELECT next_delivery <= :'later' FROM herald.engine), 'and are not forgotten');

-- The dispatcher that delivers can be ended; the next one goes on.
SELECT pg_terminate_backend(dispatcher_pid) FROM herald.engine \g /dev/null
SELECT herald.send_message('s', NULL, 'survivor', topic => 'survivor', deliver_at => clock_timestamp() + interval '10 milliseconds') \g /dev/null
SELECT is(t.arrived('survivor', 1), 'survivor', 'a new dispatcher delivers too');

-- A time to live that is over by then, and a topic that is dropped meanwhile.
SELECT herald.send_message('s', NULL, 'in the log', topic => 'drop') \g /dev/null
BEGIN;
SELECT herald.send_message('s', NULL, 'scheduled', topic => 'drop', deliver_at => clock_timestamp() + interval '1 millisecond') \g /dev/null
SELECT herald.drop_topic('drop') \g /dev/null
COMMIT;
SELECT is(t.arrived('drop', 1), 'scheduled', 'drop_topic drops what is in the log, not what is to come');

-- Idempotency keys.
SELECT herald.send_message('s', NULL, 'first', topic => 'i', deliver_at => :'later', idempotency_key => 'k') AS first \gset
SELECT is(herald.send_message('s', NULL, 'second', topic => 'i', deliver_at => :'later', idempotency_key => 'k'), :'first', 'a scheduled message has its key');
SELECT is(herald.send_message('s', NULL, 'second', topic => 'i', idempotency_key => 'k'), :'first', 'for what is sent at once too');
SELECT is(herald.publish('i', '2', idempotency_key => 'k'), :'first', 'and published');
SELECT is((SELECT array_agg(b) FROM herald.send_batch(jsonb_build_array(jsonb_build_object('topic', 'i', 'content', 'x', 'idempotency_key', 'k'))) b),
    ARRAY[:'first'::uuid], 'or in a batch');
SELECT isnt(herald.send_message('s', NULL, 'x', topic => 'i', deliver_at => :'later', idempotency_key => 'K'), :'first', 'another key is another');
SELECT is((SELECT count(*) FROM herald.scheduled WHERE topic = 'i'), 2::bigint, 'nothing more waits');
SELECT is(t.contents('i'), '', 'nor is anything sent');
SELECT is(herald.cancel(:'first'), true, 'cancelled');
SELECT herald.send_message('s', NULL, 'third', topic => 'i', idempotency_key => 'k') AS third \gset
SELECT isnt(:'third'::text, :'first', 'its key is free');
SELECT is(herald.send_message('s', NULL, 'fourth', topic => 'i', deliver_at => :'later', idempotency_key => 'k'), :'third', 'a key in the log counts for scheduled ones');
SELECT herald.send_message('s', NULL, 'one', topic => 'j', deliver_at => clock_timestamp() + interval '10 milliseconds', idempotency_key => 'k') AS one \gset
SELECT is(t.arrived('j', 1), 'one', 'delivered');
SELECT is(herald.send_message('s', NULL, 'two', topic => 'j', deliver_at => :'later', idempotency_key => 'k'), :'one', 'it keeps its key');
SET herald.idempotency_window = 0;
SELECT isnt(herald.send_message('s', NULL, 'two', topic => 'j', deliver_at => :'later', idempotency_key => 'k'), :'one', 'as long as the window says');
RESET herald.idempotency_window;

-- cancel.
SELECT herald.send_message('s', NULL, 'x', topic => 'c', deliver_at => :'later') AS id \gset
SELECT is(herald.cancel(:'id'), true, 'cancel');
SELECT is(herald.cancel(:'id'), false, 'only once');
SELECT is_empty(format('SELECT FROM herald.scheduled WHERE id = %L', :'id'), 'it waits no longer');
SELECT is(herald.cancel(gen_random_uuid()), false, 'an unknown id');
SELECT t.fails('SELECT herald.cancel(NULL)', '22004', 'message', 'NULL');
SELECT is(herald.cancel(:'one'), false, 'a message in the log is not to be cancelled');
SELECT is(t.contents('j'), 'one', 'it stays');
BEGIN;
SELECT herald.send_message('s', NULL, 'x', topic => 'c', deliver_at => :'later') AS id \gset
SELECT is(herald.cancel(:'id'), true, 'in the transaction that scheduled it');
COMMIT;
SELECT is_empty($$ SELECT FROM herald.scheduled WHERE topic = 'c' $$, 'nothing is left');

-- A cancel that is rolled back while the message is due: it arrives after all.
SELECT dblink_connect('other', t.conninfo()) \g /dev/null
SELECT herald.send_message('s', NULL, 'after all', topic => 'c', deliver_at => clock_timestamp() + interval '3 seconds') AS id \gset
BEGIN;
SELECT herald.cancel(:'id') AS cancelled \gset
SELECT is((SELECT n FROM dblink('other', $$ SELECT herald.send_message('s', NULL, 'next', topic => 'd', deliver_at => clock_timestamp() + '3 seconds');
    $$) AS x(id uuid), LATERAL dblink('other', $$ SELECT content FROM herald.wait_for('d', 0, '30 seconds') $$) AS y(n text)), 'next',
    'while a due message is being cancelled, those after it arrive');
ROLLBACK;
SELECT is((SELECT :'cancelled'), 't', 'it was cancelled');
SELECT is(t.arrived('c', 1), 'after all', 'and arrives after the rollback');

-- Cancelled or delivered, never both and never neither, while the dispatcher is at it.
CREATE TABLE t.race (id uuid, cancelled boolean);
BEGIN;
INSERT INTO t.race SELECT herald.send_message('s', NULL, n::text, topic => 'race', deliver_at => at + n * interval '100 microseconds')
FROM generate_series(1, 500) n, (SELECT clock_timestamp() AS at) x;
COMMIT;
DO $$
DECLARE
    message uuid;
BEGIN
    FOR message IN SELECT id FROM t.race ORDER BY md5(id::text) LOOP
        UPDATE t.race SET cancelled = herald.cancel(message) WHERE id = message;
        COMMIT;
    END LOOP;
END $$;
SELECT is(t.arrived('race', (SELECT count(*)::int FROM t.race WHERE NOT cancelled)), t.shown('race'), 'the race is over');
SELECT is_empty($$ SELECT id FROM t.race WHERE cancelled = EXISTS (SELECT FROM herald.messages m WHERE m.id = race.id) $$, 'either, or');
SELECT is_empty($$ SELECT FROM herald.scheduled WHERE topic = 'race' $$, 'nothing waits');

SELECT dblink_disconnect('other') \g /dev/null
SELECT * FROM finish();
