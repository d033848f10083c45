-- create_topic and the view topics with its counters.
\ir helpers.psql
SELECT plan(48);

SELECT is((SELECT count(*) FROM herald.topics), 0::bigint, 'no topics at first');
SELECT is(herald.create_topic('made', 'what it is for')::text, '', 'create_topic');
SELECT is((SELECT (name, description, messages, bytes, last_pos, last_at)::text FROM herald.topics), '(made,"what it is for",0,0,,)',
    'a created topic without messages');
SELECT ok((SELECT created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() FROM herald.topics), 'created_at');
SELECT t.fails($$ SELECT herald.create_topic('made') $$, '42710', 'made', 'creating it again is an error');
SELECT lives_ok($$ SELECT herald.create_topic('made', if_not_exists => true) $$, 'unless if_not_exists');
SELECT is((SELECT description FROM herald.topics WHERE name = 'made'), 'what it is for', 'which changes nothing');
SELECT t.fails($$ SELECT herald.create_topic(NULL) $$, '22004', 'topic', 'NULL name');
SELECT lives_ok($$ SELECT herald.create_topic('plain') $$, 'without description');
SELECT is((SELECT description FROM herald.topics WHERE name = 'plain'), NULL, 'has none');

-- On first use.
SELECT herald.send_message('s', NULL, 'x', topic => 'used') AS used \gset
SELECT is((SELECT (name, description, messages)::text FROM herald.topics WHERE name = 'used'), '(used,,1)', 'a topic is there on first use');
SELECT is((SELECT last_pos FROM herald.topics WHERE name = 'used'), (SELECT pos FROM herald.messages WHERE id = :'used'), 'last_pos');
SELECT is((SELECT last_at FROM herald.topics WHERE name = 'used'), (SELECT at FROM herald.messages WHERE id = :'used'), 'last_at');
SELECT ok((SELECT bytes > 0 FROM herald.topics WHERE name = 'used'), 'bytes');
SELECT ok((SELECT created_at IS NOT NULL FROM herald.topics WHERE name = 'used'), 'created_at');
BEGIN;
SELECT herald.send_message('s', NULL, 'x', topic => 'never') \g /dev/null
SELECT is((SELECT messages FROM herald.topics WHERE name = 'never'), 1::bigint, 'seen in its own transaction');
ROLLBACK;
SELECT is((SELECT count(*) FROM herald.topics WHERE name = 'never'), 0::bigint, 'a rollback takes the topic back');
SELECT herald.send_message('s', NULL, 'x', topic => 'never') \g /dev/null
SELECT is((SELECT messages FROM herald.topics WHERE name = 'never'), 1::bigint, 'and it can be used after that');
SELECT herald.send_message('s', NULL, 'x', topic => 'made') \g /dev/null
SELECT is((SELECT (description, messages)::text FROM herald.topics WHERE name = 'made'), '("what it is for",1)', 'a created topic in use');
SELECT t.fails($$ SELECT herald.create_topic('used') $$, '42710', 'used', 'a topic in use exists');
SELECT lives_ok($$ SELECT herald.create_topic('used', 'now described', if_not_exists => true) $$, 'if_not_exists on a topic in use');

-- Counters are exact at any time: before and after they are folded, with savepoints undone.
CREATE FUNCTION t.counters_agree() RETURNS boolean LANGUAGE sql AS $$
    SELECT NOT EXISTS (
        SELECT name, messages, last_pos, last_at FROM herald.topics WHERE messages > 0
        EXCEPT SELECT topic, count(*), max(pos), (array_agg(at ORDER BY pos DESC))[1] FROM herald.messages GROUP BY topic)
    AND NOT EXISTS (
        SELECT topic, count(*), max(pos) FROM herald.messages GROUP BY topic EXCEPT SELECT name, messages, last_pos FROM herald.topics) $$;
SELECT ok(t.counters_agree(), 'counters agree with the log');
BEGIN;
SELECT herald.send_message('s', NULL, 'x', topic => 'c' || n % 7) FROM generate_series(1, 100) n \g /dev/null
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'x', topic => 'c' || n % 5) FROM generate_series(1, 2000) n \g /dev/null
ROLLBACK TO s;
SELECT herald.send_message('s', NULL, 'x', topic => 'c' || n % 3) FROM generate_series(1, 50) n \g /dev/null
COMMIT;
SELECT ok(t.counters_agree(), 'after a savepoint was undone');
SELECT is((SELECT sum(messages) FROM herald.topics WHERE name LIKE 'c_'), 150::numeric, '150 messages');
SELECT herald.publish_batch('bulk', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 3500) n)) \g /dev/null
SELECT ok(t.counters_agree(), 'after a batch of 3,500');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'bulk'), 3500::bigint, 'all counted');
SELECT herald.send_message('s', NULL, 'x', topic => 'c' || n % 7) FROM generate_series(1, 3000) n \g /dev/null
SELECT ok(t.counters_agree(), 'after 3,000 sends in one statement');
SELECT is(herald.maintain()::text, '', 'maintain');
SELECT ok(t.counters_agree(), 'after maintain');
SELECT lives_ok('SELECT herald.maintain()', 'maintain again');
SELECT ok(t.counters_agree(), 'after maintain again');
BEGIN;
SELECT herald.send_message('s', NULL, 'x', topic => 'c1') FROM generate_series(1, 1500) n \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT ok(t.counters_agree(), 'maintain in a transaction that has sent');
ROLLBACK;
SELECT ok(t.counters_agree(), 'and that was rolled back');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'bulk'), 3500::bigint, 'nothing is lost');
INSERT INTO herald.message (topic, content) SELECT 'inserted', n::text FROM generate_series(1, 2500) n;
SELECT ok(t.counters_agree(), 'after a plain INSERT of 2,500');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'inserted'), 2500::bigint, 'all counted');
SELECT is((SELECT sum(bytes) > 2500 FROM herald.topics WHERE name = 'inserted'), true, 'with their bytes');

-- alter_topic
SELECT is(herald.alter_topic('made', 'something else')::text, '', 'alter_topic');
SELECT is((SELECT description FROM herald.topics WHERE name = 'made'), 'something else', 'describes a topic anew');
SELECT is(herald.alter_topic('made')::text, '', 'without a description');
SELECT is((SELECT description FROM herald.topics WHERE name = 'made'), NULL, 'it has none');
SELECT created_at AS since FROM herald.topics WHERE name = 'inserted' \gset
SELECT is(herald.alter_topic('inserted', 'by INSERT')::text, '', 'a topic that was made by its first message');
SELECT is((SELECT (description, created_at)::text FROM herald.topics WHERE name = 'inserted'), ROW('by INSERT', :'since'::timestamptz)::text, 'is as old as before');
SELECT t.fails($$ SELECT herald.alter_topic('unknown', 'x') $$, '42704', 'unknown', 'an unknown topic');
SELECT lives_ok($$ SELECT herald.alter_topic('unknown', 'x', if_exists => true) $$, 'is no error with if_exists');
SELECT is((SELECT count(*) FROM herald.topics WHERE name = 'unknown'), 0::bigint, 'and stays unknown');
SELECT t.fails($$ SELECT herald.alter_topic(NULL, 'x') $$, '22004', 'topic', 'NULL name');
SELECT t.fails($$ SELECT herald.alter_topic('a*', 'x') $$, '22023', 'a\*', 'a pattern');

SELECT * FROM finish();
