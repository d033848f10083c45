-- Retention: limits by age, number and bytes; trim; what readers are told; exact counters.
\ir helpers.psql
SELECT plan(62);

-- The rules.
SELECT is(herald.set_retention('r:*', '1 hour', 10, 1000)::text, '', 'set_retention');
SELECT is((SELECT (max_age, max_messages, max_bytes)::text FROM herald.retention WHERE topics = 'r:*'), '(01:00:00,10,1000)', 'is kept');
SELECT herald.set_retention('r:*', max_messages => 5) \g /dev/null
SELECT is((SELECT (max_age, max_messages, max_bytes)::text FROM herald.retention WHERE topics = 'r:*'), '(,5,)', 'setting it again replaces all limits');
SELECT is(herald.reset_retention('r:*'), true, 'reset_retention');
SELECT is(herald.reset_retention('r:*'), false, 'nothing is left to reset');
SELECT is_empty('SELECT FROM herald.retention', 'no rule');
SELECT t.fails($$ SELECT herald.set_retention(NULL, '1 day') $$, '22004', 'topics', 'NULL topics');
SELECT t.fails($$ SELECT herald.set_retention('', '1 day') $$, '22023', 'topic', 'an empty topic');
SELECT t.fails($$ SELECT herald.set_retention('a', '-1 day') $$, '22023', 'max_age is -1 days', 'a negative age');
SELECT t.fails($$ SELECT herald.set_retention('a', '0') $$, '22023', 'max_age is 00:00:00', 'age zero');
SELECT t.fails($$ SELECT herald.set_retention('a', max_messages => 0) $$, '22023', 'max_messages is 0', 'zero messages');
SELECT t.fails($$ SELECT herald.set_retention('a', max_bytes => -5) $$, '22023', 'max_bytes is -5', 'negative bytes');
SELECT t.fails($$ SELECT herald.reset_retention(NULL) $$, '22004', 'topics', 'reset of NULL');

-- The most specific rule counts.
SELECT herald.set_retention(topics, max_messages => n)
FROM (VALUES ('*', 1), ('s:*', 2), ('s:a*', 3), ('s:a?', 4), ('*:ab', 5), ('s:ab', 6)) v(topics, n) \g /dev/null
SELECT is((SELECT array_agg((herald.retention_for(topic)).max_messages ORDER BY n)
           FROM unnest(ARRAY['x', 's:x', 's:abc', 's:ac', 'r:ab', 's:ab']) WITH ORDINALITY v(topic, n)),
    '{1,2,3,4,5,6}', 'the topic itself, then the most letters, then the fewest *');
SELECT herald.reset_retention(topics) FROM herald.retention \g /dev/null
SELECT ok(herald.retention_for('x') IS NULL, 'no rule at all');

CREATE FUNCTION t.counters_agree() RETURNS boolean LANGUAGE sql AS $$
    SELECT NOT EXISTS (
        (SELECT name, messages, bytes, first_pos, last_pos, first_at FROM herald.topics WHERE messages > 0
         EXCEPT SELECT topic, count(*), sum(octet_length(content)), min(pos), max(pos), (array_agg(at ORDER BY pos))[1]
                FROM herald.messages GROUP BY topic)
        UNION ALL
        (SELECT topic, count(*), sum(octet_length(content)), min(pos), max(pos), (array_agg(at ORDER BY pos))[1]
         FROM herald.messages GROUP BY topic
         EXCEPT SELECT name, messages, bytes, first_pos, last_pos, first_at FROM herald.topics)) $$;

-- By number.
CALL t.send('n', 1, 9);
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('n'), 'm1,m2,m3,m4,m5,m6,m7,m8,m9', 'without a rule all stay');
SELECT pos AS p2 FROM herald.messages WHERE topic = 'n' AND content = 'm2' \gset
SELECT pos AS p5 FROM herald.messages WHERE topic = 'n' AND content = 'm5' \gset
SELECT herald.set_retention('n', max_messages => 4) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('n'), 'm6,m7,m8,m9', 'max_messages');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT is(t.shown('n'), 'm6,m7,m8,m9', 'the view');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('n', 0)), format('(%s,retention)', :p5), 'gap: up to the last that went');
SELECT is((SELECT to_pos FROM herald.gap('n', :p5)), NULL, 'none for who has read that far');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('?', :p2)), format('(%s,retention)', :p5), 'a gap of a pattern');
CALL t.send('n', 10, 10);
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('n'), 'm7,m8,m9,m10', 'and so on');
BEGIN;
SELECT herald.send_message('s', NULL, 'own', topic => 'n') \g /dev/null
SELECT lives_ok('SELECT herald.maintain()', 'maintain in a transaction that has sent');
COMMIT;
SELECT ok(t.counters_agree(), 'the counters agree after it');
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('n', :p2), 'm8,m9,m10,own', 'read goes on with what is kept');

-- By bytes: what is kept is the longest end that fits.
CALL t.send('b', 1, 6);
SELECT herald.set_retention('b', max_bytes => 7) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('b'), 'm4,m5,m6', 'max_bytes');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT herald.set_retention('b', max_bytes => 1) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT is(t.contents('b'), '', 'a message of more than the limit does not stay');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT herald.reset_retention('b') \g /dev/null

-- By age, by an injected clock: since when they could be read.
CALL t.send('a', 1, 3);
SELECT clock_timestamp() + interval '10 minutes' AS t1 \gset
SELECT herald.maintain_at(:'t1') \g /dev/null
CALL t.send('a', 4, 5);
SELECT herald.maintain_at(:'t1'::timestamptz + interval '1 hour') \g /dev/null
CALL t.send('a', 6, 6);
SELECT herald.set_retention('a', '3 hours') \g /dev/null
SELECT herald.maintain_at(:'t1'::timestamptz + interval '2 hours 45 minutes') \g /dev/null
SELECT is(t.contents('a'), 'm1,m2,m3,m4,m5,m6', 'max_age: not yet');
SELECT herald.maintain_at(:'t1'::timestamptz + interval '3 hours 1 second') \g /dev/null
SELECT is(t.contents('a'), 'm4,m5,m6', 'three hours after they could be read');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT herald.maintain_at(:'t1'::timestamptz + interval '5 hours') \g /dev/null
SELECT is(t.contents('a'), 'm6', 'the next');
SELECT herald.maintain_at(:'t1'::timestamptz + interval '9 hours') \g /dev/null
SELECT is(t.contents('a'), '', 'the last, though nothing was sent meanwhile');
SELECT ok(t.counters_agree(), 'the counters agree');

-- A rule for all topics lets go of whole segments; a topic with a rule of its own is not concerned.
CALL t.send('g:1', 1, 2);
CALL t.send('g:2', 1, 2);
SELECT herald.set_retention('*', '1 hour'), herald.set_retention('g:2', '1 year') \g /dev/null
SELECT herald.maintain_at(:'t1'::timestamptz + interval '20 hours') \g /dev/null
SELECT is(t.contents('g:*'), 'm1,m2,m1,m2', 'the current segment stays, and the next begins');
CALL t.send('g:1', 3, 3);
SELECT herald.maintain_at(:'t1'::timestamptz + interval '21 hours') \g /dev/null
SELECT is(t.contents('g:*'), 'm1,m2,m1,m2,m3', 'and an hour longer');
SELECT herald.maintain_at(:'t1'::timestamptz + interval '22 hours 1 second') \g /dev/null
SELECT is(t.contents('g:*'), 'm1,m2,m3', 'then it goes, but for the topic with a rule of its own');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('g:1', 0)), (SELECT format('(%s,retention)', max(pos)) FROM herald.message
    WHERE topic = 'g:1' AND content = 'm2'), 'the gap');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT herald.reset_retention(topics) FROM herald.retention \g /dev/null

-- Whatever time a row of a plain INSERT claims, it can be counted.
INSERT INTO herald.message (topic, at, content, idempotency_key) VALUES ('far', '294276-12-31 23:59:59 UTC', 'x', 'k');
SELECT lives_ok('SELECT herald.maintain()', 'a message from the end of time');

-- A dump brings the starts of topics after the messages, and the keeper may have counted these by then.
CALL t.send('d', 1, 3);
SELECT herald.maintain() \g /dev/null
SELECT pos AS p2 FROM herald.messages WHERE topic = 'd' AND content = 'm2' \gset
INSERT INTO herald.topic_start (topic, start_pos, why) VALUES ('d', :p2, 'dropped');
SELECT ok(t.counters_agree(), 'the counters agree at once');
SELECT herald.maintain() \g /dev/null
SELECT is((SELECT messages FROM herald.topics WHERE name = 'd'), 1::bigint, 'what a restored start hides is not counted');
SELECT ok(t.counters_agree(), 'the counters agree');

-- trim.
CALL t.send('t:1', 1, 5);
CALL t.send('t:2', 1, 5);
SELECT pos AS p3, at AS a3 FROM herald.messages WHERE topic = 't:1' AND content = 'm3' \gset
SELECT is(herald.trim('t:1', :p3), 2::bigint, 'trim below a position');
SELECT is(t.contents('t:*'), 'm3,m4,m5,m1,m2,m3,m4,m5', 'that one stays');
SELECT is(herald.trim('t:1', :p3), 0::bigint, 'nothing is left to trim');
SELECT is(herald.trim('t:*', :'a3'::timestamptz), 0::bigint, 'trim by time: all was sent at that time or later');
SELECT is(herald.trim('t:*', 9007199254740991), 8::bigint, 'trim of a pattern');
SELECT is(t.contents('t:*'), '', 'all of it');
CALL t.send('t:2', 6, 7);
SELECT is(herald.trim('t:2', (SELECT at FROM herald.messages WHERE topic = 't:2' AND content = 'm7')), 1::bigint, 'trim by time');
SELECT is(t.contents('t:*'), 'm7', 'what is sent later stays');
SELECT ok(t.counters_agree(), 'the counters agree');
SELECT is(herald.trim('unknown', 10), 0::bigint, 'trim of an unknown topic');
SELECT t.fails($$ SELECT herald.trim('t:1', NULL::bigint) $$, '22004', 'before', 'NULL position');
SELECT t.fails($$ SELECT herald.trim('t:1', NULL::timestamptz) $$, '22004', 'before', 'NULL time');
SELECT t.fails($$ SELECT herald.trim(NULL, 1) $$, '22004', 'topics', 'trim of NULL');

-- With one old snapshot the messages of today cannot be counted; dropping a topic needs no counting.
CALL t.send('old', 1, 2);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM herald.topics \g /dev/null
SELECT t.fails('SELECT herald.maintain()', '25001', 'REPEATABLE READ', 'maintain in REPEATABLE READ');
SELECT t.fails($$ SELECT herald.trim('old', 1) $$, '25001', 'REPEATABLE READ', 'trim in REPEATABLE READ');
ROLLBACK;
CREATE EXTENSION dblink;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM herald.topics \g /dev/null
SELECT * FROM dblink(t.conninfo(), $$ SELECT herald.maintain()::text $$) AS x(done text) \g /dev/null
SELECT herald.drop_topic('old') \g /dev/null
COMMIT;
SELECT is_empty($$ SELECT FROM herald.topics WHERE name = 'old' $$, 'drop_topic in REPEATABLE READ: what was counted meanwhile is forgotten');
SELECT ok(t.counters_agree(), 'the counters agree');

SELECT * FROM finish();
