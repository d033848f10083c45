-- The log itself: plain INSERT and COPY, positions, segments.
\ir helpers.psql
SELECT plan(66);

-- Defaults make a message of a topic and a content.
INSERT INTO herald.message (topic, content) VALUES ('l', 'plain');
SELECT is((SELECT (message_type, priority, is_json, content)::text FROM herald.messages WHERE topic = 'l'), '(notification,0,f,plain)', 'defaults');
SELECT ok((SELECT pos BETWEEN 1 AND herald.horizon() FROM herald.messages WHERE topic = 'l'), 'a position');
SELECT ok((SELECT id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7' FROM herald.messages WHERE topic = 'l'), 'a UUIDv7');
SELECT ok((SELECT at BETWEEN now() - interval '1 minute' AND clock_timestamp() FROM herald.messages WHERE topic = 'l'), 'a time');
INSERT INTO herald.message (id, topic, at, sender, recipient, message_type, content, metadata, conversation, reply_to, priority,
        ordering_key, expires_at, workspace, idempotency_key, is_json)
    VALUES ('01980000-0000-7000-8000-00000000002a', 'l', '2026-01-01T00:00:00Z', 's', 'r', 'command', '[1]', '{"m": 1}', 'c',
        '01980000-0000-7000-8000-000000000001', 5, 'o', 'infinity', 'w', 'i', true);
SELECT is((SELECT (id, topic, at = '2026-01-01T00:00:00Z', sender, recipient, message_type, content, metadata, conversation, reply_to,
                   priority, ordering_key, expires_at, workspace, idempotency_key, is_json)::text FROM herald.messages WHERE content = '[1]'),
    '(01980000-0000-7000-8000-00000000002a,l,t,s,r,command,[1],"{""m"": 1}",c,01980000-0000-7000-8000-000000000001,5,o,infinity,w,i,t)',
    'every column but pos can be given');
SELECT is((SELECT count(*) FROM herald.message_by_id('01980000-0000-7000-8000-00000000002a')), 1::bigint, 'a given id is found');
SELECT is((SELECT name FROM herald.topics), 'l', 'its topic is in topics');
WITH sent AS (INSERT INTO herald.message (topic, content) SELECT 'ret', n::text FROM generate_series(1, 3) n RETURNING pos, content)
SELECT is((SELECT array_agg(content ORDER BY pos) FROM sent), '{1,2,3}', 'RETURNING gives the positions');

COPY herald.message (topic, content, sender, metadata, is_json) FROM STDIN;
copy	one	s	\N	f
copy	{"n": 2}	\N	{"m": [1]}	t
copy	tab\tand\\backslash	s	\N	f
\.
SELECT is(t.contents('copy'), E'one,{"n": 2},tab\tand\\backslash', 'COPY');
SELECT is((SELECT json_typeof(herald.envelope(m) -> 'content') FROM herald.messages m WHERE sender IS NULL AND topic = 'copy'), 'object',
    'COPY of JSON');
INSERT INTO herald.message (topic, content) SELECT 'bulk', n::text FROM generate_series(1, 20000) n;
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'bulk'),
    (SELECT array_agg(n) FROM generate_series(1, 20000) n), 'INSERT … SELECT keeps its order');
SELECT is((SELECT count(DISTINCT (pos, id)) FROM herald.messages), (SELECT count(*) FROM herald.message), 'nothing twice');

-- The same rules as for a send. Each in a transaction of its own, so that none has positions to use.
CREATE TABLE t.bad (statement text, state text, message text, what text);
INSERT INTO t.bad VALUES
    ('(topic, content) VALUES (NULL, ''x'')', '23502', 'topic', 'NULL topic'),
    ('(content) VALUES (''x'')', '23502', 'topic', 'no topic'),
    ('(topic, content) VALUES (''a'', NULL)', '23502', 'content', 'NULL content'),
    ('(topic) VALUES (''a'')', '23502', 'content', 'no content'),
    ('(topic, content) VALUES (''a?'', ''x'')', '22023', 'a\?', 'a pattern'),
    ('(topic, content) VALUES (''herald:a'', ''x'')', '42939', 'herald:a', 'a reserved topic'),
    ('(topic, content, priority) VALUES (''a'', ''x'', 10)', '22023', 'priority.*10', 'priority 10'),
    ('(topic, content, priority) VALUES (''a'', ''x'', -1)', '22023', 'priority.*-1', 'priority -1'),
    ('(topic, content, metadata) VALUES (''a'', ''x'', ''[]'')', '22023', 'metadata', 'metadata is an array'),
    ('(topic, content, is_json) VALUES (''a'', ''{bad'', true)', '22P02', 'json', 'content that is not the JSON it says'),
    ('(topic, content, is_json) VALUES (''a'', '''', true)', '22P02', 'json', 'empty content as JSON'),
    ('(topic, content, sender) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'sender', 'long sender'),
    ('(topic, content, recipient) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'recipient', 'long recipient'),
    ('(topic, content, message_type) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'message_type', 'long message_type'),
    ('(topic, content, conversation) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'conversation', 'long conversation'),
    ('(topic, content, ordering_key) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'ordering_key', 'long ordering_key'),
    ('(topic, content, workspace) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'workspace', 'long workspace'),
    ('(topic, content, idempotency_key) VALUES (''a'', ''x'', repeat(''s'', 201))', '22001', 'idempotency_key', 'long idempotency_key'),
    ('(topic, content, at) VALUES (''a'', ''x'', ''infinity'')', '22023', 'infinity|at ', 'a time that is none'),
    ('(topic, content, at) VALUES (''a'', ''x'', ''-infinity'')', '22023', 'infinity|at ', 'nor this'),
    ('(pos, topic, content) VALUES ((SELECT min(pos) FROM herald.message), ''a'', ''x'')', '23505', '', 'an explicit position'),
    ('(pos, topic, content) VALUES (900000000, ''a'', ''x'')', '428C9', '900000000', 'an explicit position far ahead'),
    ('(pos, topic, content) VALUES (5000000000, ''a'', ''x'')', '23514', 'partition', 'an explicit position beyond the segments'),
    ('(pos, topic, content) VALUES ((SELECT max(pos) FROM herald.message), ''a'', ''x'')', '23505', '', 'a position that is taken'),
    ('(pos, topic, content) VALUES (herald.horizon() + 1, ''a'', ''x'')', '428C9', '', 'the next position'),
    ('(pos, topic, content) VALUES (0, ''a'', ''x'')', '428C9', '0', 'position 0'),
    ('(pos, topic, content) VALUES (-1, ''a'', ''x'')', '23514', 'partition', 'a negative position');
SELECT format('SELECT t.fails(%L, %L, %L, %L, %L)', 'INSERT INTO herald.message ' || statement, state, message, 'INSERT: ' || what,
              state NOT LIKE '23%' AND state <> '22P02')
FROM t.bad \gexec
SELECT is((SELECT count(*) FROM herald.messages WHERE topic = 'a'), 0::bigint, 'nothing of that is stored');

-- Positions: below 2^53, unique, in the order of statements; savepoints make holes, never late arrivals.
BEGIN;
SELECT herald.send_message('s', NULL, '1', topic => 'p') \g /dev/null
SAVEPOINT a;
SELECT herald.send_message('s', NULL, '2', topic => 'p') \g /dev/null
SAVEPOINT b;
SELECT herald.send_message('s', NULL, 'undone', topic => 'p') \g /dev/null
ROLLBACK TO b;
INSERT INTO herald.message (topic, content) VALUES ('p', '3');
RELEASE a;
SELECT herald.publish_batch('p', '{4,5}') \g /dev/null
DO $$ BEGIN
    BEGIN
        PERFORM herald.send_message('s', NULL, 'undone too', topic => 'p');
        RAISE 'undo';
    EXCEPTION WHEN raise_exception THEN PERFORM herald.send_message('s', NULL, '6', topic => 'p');
    END;
END $$;
COMMIT;
SELECT is(t.contents('p'), '1,2,3,4,5,6', 'savepoints: what is kept is in the order it was sent');
BEGIN;
SAVEPOINT first_thing;
SELECT herald.send_message('s', NULL, 'undone', topic => 'p') \g /dev/null
ROLLBACK TO first_thing;
INSERT INTO herald.message (topic, content) VALUES ('p', '7');
COMMIT;
SELECT herald.send_message('s', NULL, '8', topic => 'p') \g /dev/null
SELECT is(t.contents('p'), '1,2,3,4,5,6,7,8', 'a first send undone');
SELECT is((SELECT count(*) FROM (SELECT pos - lag(pos) OVER (ORDER BY at, pos) AS step FROM herald.messages
           WHERE topic IN ('p', 'bulk', 'ret')) x WHERE step <= 0), 0::bigint, 'later is higher');
SELECT ok((SELECT bool_and(pos BETWEEN 1 AND 9007199254740991) FROM herald.message), 'all are safe in JavaScript');
SELECT is((SELECT array_agg(content ORDER BY pos) FROM herald.messages WHERE id IN (
    SELECT unnest(ARRAY[herald.send_message('s', NULL, 'x', topic => 'q'), herald.publish('q', '2'), herald.send_message('s', NULL, 'z', topic => 'q')]))),
    NULL, 'a statement reads the view with its own, older snapshot');
SELECT is(t.contents('q'), 'x,2,z', 'calls in one statement are in order');

-- A prepared transaction would keep all other senders waiting: refused, as NOTIFY refuses it. (It
-- cannot run in a function, so psql itself catches the error.)
BEGIN;
SET LOCAL herald.notify = off;
SELECT herald.send_message('s', NULL, 'prepared', topic => 'two-phase') \g /dev/null
\set ON_ERROR_STOP 0
PREPARE TRANSACTION 'herald';
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '0A000', 'PREPARE TRANSACTION after a send is refused');
SELECT is(t.contents('two-phase'), '', 'and its messages are gone');

-- What pg_restore does: rows come back at their old positions through herald.restore, which stays empty.
INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json)
    VALUES (500000000, '01980000-0000-7000-8000-00000000002b', 'restored', now(), 'notification', 'old', 0, false);
SELECT is((SELECT pos FROM herald.messages WHERE topic = 'restored'), 500000000::bigint, 'a restored message has its old position');
SELECT is((SELECT count(*) FROM herald.restore), 0::bigint, 'the door it came through is empty');
DELETE FROM herald.message WHERE topic = 'restored';

-- Segments: fixed bounds of a billion, each name and row in its place, one ahead of need.
SELECT is((SELECT count(*) FROM pg_inherits i, pg_class c WHERE i.inhparent = 'herald.message'::regclass AND c.oid = i.inhrelid
    AND pg_get_expr(c.relpartbound, c.oid) !~ '^FOR VALUES FROM \(''\d+000000000''\) TO \(''\d+000000000''\)$'
    AND pg_get_expr(c.relpartbound, c.oid) !~ '^FOR VALUES FROM \(''0''\) TO \(''1000000000''\)$'), 0::bigint, 'segments are a billion wide');
SELECT cmp_ok((SELECT count(*) FROM pg_inherits WHERE inhparent = 'herald.message'::regclass), '>=', 2::bigint, 'one is made ahead of need');
SELECT is((SELECT count(*) FROM pg_inherits i WHERE i.inhparent = 'herald.message'::regclass AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.objid = i.inhrelid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')), 0::bigint,
    'segments belong to the extension');

-- The counter crosses into the next segment.
SELECT t.go_on_above(999999998) \g /dev/null
SELECT herald.publish_batch('cross', '{1,2,3,4}') \g /dev/null
SELECT is((SELECT array_agg(pos ORDER BY pos) FROM herald.messages WHERE topic = 'cross'),
    '{999999999,1000000000,1000000001,1000000002}', 'a batch across a segment''s end');
SELECT is(t.contents('cross'), '1,2,3,4', 'is read in one');
SELECT is((SELECT count(DISTINCT tableoid) FROM herald.message WHERE topic = 'cross'), 2::bigint, 'from two segments');
SELECT is((SELECT count(*) FROM herald.messages m, herald.message_by_id(m.id) f WHERE m.topic = 'cross' AND f = m), 4::bigint, 'found by id in both');
SELECT lives_ok('SELECT herald.maintain()', 'maintain');
INSERT INTO herald.message (topic, content) VALUES ('cross', '5');
COPY herald.message (topic, content) FROM STDIN;
cross	6
\.
SELECT is(t.contents('cross'), '1,2,3,4,5,6', 'INSERT and COPY go on there');
SELECT t.go_on_above(1999999999) \g /dev/null
SELECT herald.send_message('s', NULL, '7', topic => 'cross') \g /dev/null
SELECT is((SELECT max(pos) FROM herald.messages WHERE topic = 'cross'), 2000000000::bigint, 'the next segment is there when it is needed');
SELECT is(t.contents('*', 999999998), '1,2,3,4,5,6,7', 'everything is read, in order');

-- A new segment can be begun at any time.
SELECT is(herald.start_segment(), 3000000000::bigint, 'start_segment says where the next segment begins');
SELECT herald.send_message('s', NULL, '8', topic => 'cross') \g /dev/null
SELECT is((SELECT max(pos) FROM herald.messages), 3000000000::bigint, 'and the next message is its first');
BEGIN;
SELECT herald.send_message('s', NULL, '9', topic => 'cross') \g /dev/null
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_message('s', NULL, '10', topic => 'cross') \g /dev/null
INSERT INTO herald.message (topic, content) VALUES ('cross', '11');
COMMIT;
SELECT is(t.contents('cross', 2000000000), '8,9,10,11', 'in the middle of a transaction too');
SELECT ok(herald.horizon() >= (SELECT max(pos) FROM herald.messages), 'the horizon follows');
BEGIN;
SELECT herald.start_segment() \g /dev/null
ROLLBACK;
INSERT INTO herald.message (topic, content) VALUES ('cross', '12');
SELECT is(t.contents('cross', 2000000000), '8,9,10,11,12', 'a start that was rolled back does no harm');

SELECT * FROM finish();
