-- Positions without the engine: one after the other from 1, and the horizon is the last of them.
\ir helpers.psql
SELECT plan(14);

SELECT is(herald.horizon(), 0::bigint, 'the horizon of an empty log');
SELECT is((SELECT (pos, topic)::text FROM herald.feed(NULL, 0, 10, 1000, 1000)), '(0,)', 'its feed is complete up to there');
SELECT is((SELECT (pos, topic)::text FROM herald.feed('a*', 0, 10, 1000, 1000)), '(0,)', 'with a pattern too');
SELECT is(herald.tail_start('a', 10), 0::bigint, 'its tail starts at its beginning');

SELECT herald.send_message('s', NULL, n::text, topic => 'a') FROM generate_series(1, 30) n \g /dev/null
SELECT is((SELECT array_agg(pos ORDER BY pos) FROM herald.messages), (SELECT array_agg(n::bigint) FROM generate_series(1, 30) n),
    'no numbers are left out');
SELECT is(herald.horizon(), 30::bigint, 'the horizon is the last position');
INSERT INTO herald.message (topic, content) VALUES ('a', '31');
SELECT is(herald.horizon(), 31::bigint, 'after an INSERT too');

-- A snapshot is all a reader needs: so a transaction reads what it has sent.
BEGIN;
SELECT herald.send_message('s', NULL, 'mine', topic => 'own', conversation => 'own') \g /dev/null
SELECT is(t.contents('own'), 'mine', 'read: its own message');
SELECT is((SELECT content FROM herald.tail('own')), 'mine', 'tail');
SELECT is((SELECT content FROM herald.conversation('own')), 'mine', 'conversation');
SELECT is((SELECT envelope::json ->> 'content' FROM herald.feed('own', 0, 10, 1000, 1000) WHERE topic IS NOT NULL), 'mine', 'feed');
ROLLBACK;
SELECT is(t.contents('own'), '', 'until its rollback');

-- What the views of the engine say.
SELECT is((SELECT e::text FROM herald.engine e), '(f,33,31,,,,,,,,,,,,)', 'herald.engine: not loaded');
SELECT is_empty('SELECT * FROM herald.senders', 'herald.senders: nobody');

SELECT * FROM finish();
