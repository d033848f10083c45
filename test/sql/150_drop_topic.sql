-- drop_topic: its messages are gone for every reader, who is told so; the name lives on.
\ir helpers.psql
SELECT plan(46);

SELECT herald.send_message('s', NULL, 'd' || n, topic => (ARRAY['d:a', 'd:b'])[n % 2 + 1], conversation => 'c')
FROM generate_series(1, 6) n \g /dev/null
SELECT id AS a2, pos AS a2_pos FROM herald.messages WHERE content = 'd2' \gset
SELECT max(pos) AS a_last FROM herald.messages WHERE topic = 'd:a' \gset
SELECT is(t.contents('d:a'), 'd2,d4,d6', 'before');

-- Undone, it never was.
BEGIN;
SELECT herald.drop_topic('d:a') \g /dev/null
SELECT is(t.contents('d:a'), '', 'dropped in this transaction');
ROLLBACK;
SELECT is(t.contents('d:a'), 'd2,d4,d6', 'a rollback brings it back');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('d:a', 0)), '(,)', 'without a gap');
BEGIN;
SAVEPOINT s;
SELECT herald.drop_topic('d:a') \g /dev/null
ROLLBACK TO s;
SELECT herald.send_message('s', NULL, 'd8', topic => 'd:a') \g /dev/null
COMMIT;
SELECT is(t.contents('d:a'), 'd2,d4,d6,d8', 'so does a savepoint');
SELECT max(pos) AS a_last FROM herald.messages WHERE topic = 'd:a' \gset

SELECT is(herald.drop_topic('d:a')::text, '', 'drop_topic');
SELECT is(t.contents('d:a'), '', 'read');
SELECT is(t.contents('d:*'), 'd1,d3,d5', 'read of a pattern');
SELECT is((SELECT string_agg(content, ',' ORDER BY pos) FROM herald.messages), 'd1,d3,d5', 'the view');
SELECT is_empty($$ SELECT herald.tail('d:a') $$, 'tail');
SELECT is((SELECT string_agg(content, ',') FROM herald.tail('d:*', 3)), 'd1,d3,d5', 'tail of a pattern reaches past them');
SELECT is((SELECT string_agg(content, ',') FROM herald.conversation('c')), 'd1,d3,d5', 'conversation');
SELECT is_empty(format('SELECT herald.message_by_id(%L)', :'a2'), 'message_by_id');
SELECT is((SELECT string_agg(envelope::json ->> 'content', ',' ORDER BY pos) FROM herald.feed('*', 0, 10, 10000, 10000)), 'd1,d3,d5', 'feed');
SELECT is(t.contents('d:*', herald.tail_start('d:*', 2)), 'd3,d5', 'tail_start');
SELECT t.fails(format('SELECT herald.reply(%L, ''x'')', :'a2'), 'P0002', :'a2', 'reply');
SELECT is((SELECT count(*) FROM herald.topics WHERE name = 'd:a'), 0::bigint, 'it is no longer in topics');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'd:b'), 3::bigint, 'its neighbour is');
SELECT ok(herald.horizon() >= :a_last, 'the horizon does not go back');

-- Readers who stood inside are told; others are not.
SELECT is((SELECT why FROM herald.gap('d:a', 0)), 'dropped', 'gap: dropped');
SELECT ok((SELECT to_pos >= :a_last FROM herald.gap('d:a', 0)), 'up to its last message at least');
SELECT is((SELECT why FROM herald.gap('d:a', :a2_pos)), 'dropped', 'to who has read a part');
SELECT is((SELECT to_pos FROM herald.gap('d:a', g.to_pos)), NULL, 'not to who is past it') FROM herald.gap('d:a', 0) g;
SELECT is((SELECT why FROM herald.gap('d:*', 0)), 'dropped', 'with a pattern');
SELECT is((SELECT why FROM herald.gap('*', 0)), 'dropped', 'with every pattern that contains it');
SELECT is((SELECT to_pos FROM herald.gap('d:b', 0)), NULL, 'not in another topic');
SELECT is((SELECT to_pos FROM herald.gap('x*', 0)), NULL, 'nor with a pattern that does not match');
SELECT ok((SELECT g.to_pos <= herald.horizon() FROM herald.gap('d:a', 0) g), 'a gap ends at the horizon at the latest');

-- It is unknown now; and can be used or made anew.
SELECT t.fails($$ SELECT herald.drop_topic('d:a') $$, '42704', 'd:a', 'dropping it again is an error');
SELECT t.fails($$ SELECT herald.drop_topic('never used') $$, '42704', 'never used', 'so is dropping an unknown topic');
SELECT t.fails($$ SELECT herald.drop_topic(NULL) $$, '22004', 'topic', 'NULL name');
SELECT herald.send_message('s', NULL, 'new life', topic => 'd:a') AS new_life \gset
SELECT is(t.contents('d:a'), 'new life', 'messages sent after the drop are read');
SELECT is((SELECT (messages, last_pos)::text FROM herald.topics WHERE name = 'd:a'),
    (SELECT (1, pos)::text FROM herald.messages WHERE id = :'new_life'), 'and only they are counted');
SELECT ok((SELECT g.to_pos < m.pos FROM herald.gap('d:a', 0) g, herald.messages m WHERE id = :'new_life'), 'the gap ends before them');
SELECT is(t.contents('d:a', (SELECT to_pos FROM herald.gap('d:a', 0))), 'new life', 'reading on from the gap finds them');
SELECT lives_ok($$ SELECT herald.create_topic('made'); SELECT herald.drop_topic('made'); SELECT herald.create_topic('made', 'anew') $$,
    'create, drop, create');
SELECT is((SELECT description FROM herald.topics WHERE name = 'made'), 'anew', 'the new one');
SELECT is((SELECT to_pos FROM herald.gap('made', 0)), NULL, 'dropping a topic without messages is no gap');

-- In one transaction: send, drop, send.
BEGIN;
SELECT herald.send_message('s', NULL, 'before', topic => 'tx') \g /dev/null
SELECT herald.drop_topic('tx') \g /dev/null
SELECT herald.send_message('s', NULL, 'after', topic => 'tx') \g /dev/null
SELECT is(t.shown('tx'), 'after', 'send, drop, send in one transaction');
COMMIT;
SELECT is(t.contents('tx'), 'after', 'and after its commit');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'tx'), 1::bigint, 'counted as one');
SELECT herald.maintain() \g /dev/null
SELECT is((SELECT messages FROM herald.topics WHERE name = 'tx'), 1::bigint, 'maintain does not count the dropped ones');
SELECT is(t.contents('*'), 'd1,d3,d5,new life,after', 'and brings nothing back');


-- A batch, which the engine keeps far ahead of the counter, is dropped like any other.
BEGIN;
SET LOCAL statement_timeout = '20s';
SELECT herald.publish_batch('tx:batch', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 200) n)) \g /dev/null
SELECT lives_ok($$ SELECT herald.drop_topic('tx:batch') $$, 'batch, drop, send in one transaction');
SELECT herald.send_message('s', NULL, 'after', topic => 'tx:batch') \g /dev/null
COMMIT;
SELECT is(t.contents('tx:batch'), 'after', 'what was sent before the drop is gone');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'tx:batch'), 1::bigint, 'and not counted');

SELECT * FROM finish();
