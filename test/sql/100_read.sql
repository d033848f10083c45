-- read, tail, conversation, message_by_id, horizon: everything once, in order, in pages.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(61);

SELECT is(t.contents('*'), '', 'nothing to read in an empty log');
SELECT is_empty($$ SELECT herald.tail('*') $$, 'no tail of an empty log');

SELECT herald.send_message('s', NULL, n::text, topic => (ARRAY['r:a', 'r:b', 'other'])[n % 3 + 1],
    conversation => 'run-' || n % 2) FROM generate_series(1, 30) n \g /dev/null

-- One topic, a pattern, everything.
SELECT is(t.contents('r:a'), '3,6,9,12,15,18,21,24,27,30', 'one topic, in order');
SELECT is(t.contents('r:?'), '1,3,4,6,7,9,10,12,13,15,16,18,19,21,22,24,25,27,28,30', 'a pattern, in order');
SELECT is(t.contents('*'), (SELECT string_agg(n::text, ',' ORDER BY n) FROM generate_series(1, 30) n), 'everything');
SELECT is(t.contents('nothing'), '', 'a topic without messages');
SELECT is(t.contents('nothing*'), '', 'a pattern without topics');
SELECT is(t.contents('herald'), '', 'a reserved name holds nothing');
SELECT ok(herald.horizon() >= (SELECT max(pos) FROM herald.messages), 'all of it is up to the horizon');

-- Pages: with any size the pages together are the whole, each message once.
CREATE FUNCTION t.paged(topics text, size int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    at bigint := 0;
    got text[] := '{}';
    page herald.messages[];
BEGIN
    LOOP
        SELECT array_agg(m) INTO page FROM herald.read(topics, at, size) m;
        EXIT WHEN page IS NULL;
        IF array_length(page, 1) > size THEN RAISE 'a page of %', array_length(page, 1); END IF;
        got := got || (SELECT array_agg(p.content) FROM unnest(page) p);
        at := page[array_length(page, 1)].pos;
    END LOOP;
    RETURN array_to_string(got, ',');
END $$;
SELECT is(t.paged('*', size), t.contents('*'), format('everything in pages of %s', size)) FROM unnest(ARRAY[1, 2, 7, 30, 10000]) size;
SELECT is(t.paged('r:?', size), t.contents('r:?'), format('a pattern in pages of %s', size)) FROM unnest(ARRAY[1, 3, 20]) size;
SELECT is(t.paged('r:b', size), t.contents('r:b'), format('a topic in pages of %s', size)) FROM unnest(ARRAY[1, 4]) size;
SELECT is(t.contents('*', (SELECT pos FROM herald.messages WHERE content = '27')), '28,29,30', 'after is exclusive');
SELECT is(t.contents('*', herald.horizon()), '', 'nothing above the horizon');
SELECT is(t.contents('*', 9007199254740991), '', 'nor far above');
SELECT is((SELECT count(*) FROM herald.read('*')), 30::bigint, 'defaults: from the start');
SELECT herald.publish_batch('many', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 150) n)) \g /dev/null
SELECT is((SELECT count(*) FROM herald.read('many')), 100::bigint, 'defaults: at most 100');
SELECT is((SELECT count(*) FROM herald.read('many', max => 10000)), 150::bigint, 'up to 10,000');
SELECT is((SELECT (m).content FROM (SELECT herald.read('many', max => 1) AS m) r), '1', 'read works in a SELECT list too');
SELECT is((SELECT count(*) FROM (SELECT * FROM herald.read('many') LIMIT 3) r), 3::bigint, 'read works under a LIMIT');

-- The rows are those of the view.
SELECT results_eq($$ SELECT * FROM herald.read('r:a') $$, $$ SELECT * FROM herald.messages WHERE topic = 'r:a' ORDER BY pos $$,
    'read gives the rows of the view');
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'many'),
    (SELECT array_agg(n) FROM generate_series(1, 150) n), 'the view has them all');

-- tail.
SELECT is((SELECT string_agg(content, ',' ORDER BY n) FROM herald.tail('r:a', 3) WITH ORDINALITY AS x(pos, id, topic, at,
    sender, recipient, message_type, content, metadata, conversation, reply_to, priority, ordering_key, expires_at, workspace,
    idempotency_key, is_json, n)), '24,27,30', 'tail: the last, ascending');
SELECT is((SELECT string_agg(content, ',') FROM herald.tail('r:?', 4)), '25,27,28,30', 'tail of a pattern');
SELECT is((SELECT string_agg(content, ',') FROM herald.tail('r:a', 10000)), t.contents('r:a'), 'tail longer than the topic');
SELECT is((SELECT count(*) FROM herald.tail('many')), 10::bigint, 'defaults: the last ten');
SELECT is_empty($$ SELECT herald.tail('nothing', 5) $$, 'tail of nothing');

-- conversation and message_by_id.
SELECT is((SELECT string_agg(content, ',') FROM herald.conversation('run-1')), '1,3,5,7,9,11,13,15,17,19,21,23,25,27,29',
    'a conversation over its topics, in order');
SELECT is_empty($$ SELECT herald.conversation('run-9') $$, 'an unknown conversation is empty');
SELECT is_empty($$ SELECT herald.conversation('run-?') $$, 'a conversation is no pattern');
SELECT is((SELECT count(*) FROM herald.messages m, herald.message_by_id(m.id) f WHERE f = m), 180::bigint,
    'every message is found by its id');
SELECT is_empty($$ SELECT herald.message_by_id('01980000-0000-7000-8000-00000000002a') $$, 'an unknown id');
SELECT is_empty($$ SELECT herald.message_by_id('00000000-0000-0000-0000-000000000000') $$, 'the nil UUID');
SELECT is_empty($$ SELECT herald.message_by_id('ffffffff-ffff-ffff-ffff-ffffffffffff') $$, 'the largest UUID');
SELECT is_empty($$ SELECT herald.message_by_id(gen_random_uuid()) $$, 'a random UUID');

-- Bad arguments.
SELECT t.fails(format('SELECT herald.read(''a'', 0, %s)', n), '22023', 'max.*' || n, 'read: max ' || n) FROM unnest(ARRAY[0, -1, 10001]) n;
SELECT t.fails(format('SELECT herald.tail(''a'', %s)', n), '22023', 'last.*' || n, 'tail: last ' || n) FROM unnest(ARRAY[0, -1, 10001]) n;
SELECT t.fails($$ SELECT herald.read('a', -1) $$, '22023', 'after.*-1', 'read: after -1');
SELECT t.fails($$ SELECT herald.read(NULL) $$, '22004', 'topics', 'read: NULL topics');
SELECT t.fails($$ SELECT herald.tail(NULL) $$, '22004', 'topics', 'tail: NULL topics');
SELECT t.fails($$ SELECT herald.conversation(NULL) $$, '22004', 'conversation', 'conversation: NULL');

-- In the sender's own transaction, and after its rollback.
BEGIN;
SELECT herald.send_message('s', NULL, 'mine', topic => 'own') \g /dev/null
SELECT is(t.shown('own'), 'mine', 'a transaction sees what it has sent');
ROLLBACK;
SELECT is(t.contents('own'), '', 'a rollback took it back (G1)');

-- A reader whose snapshot is old: whatever read() and feed() say is complete must be complete.
SELECT dblink_connect('other', t.conninfo()) \g /dev/null
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM herald.message \g /dev/null
SELECT * FROM dblink('other', $$ SELECT herald.send_message('s', NULL, 'later', topic => 'later') $$) AS x(id uuid) \g /dev/null
SELECT is(t.contents('later'), 'later', 'REPEATABLE READ: read sees what was committed meanwhile');
SELECT is((SELECT string_agg(coalesce(topic, 'end'), ',') FROM herald.feed('later', 0, 10, 100000, 100000)), 'later,end',
    'REPEATABLE READ: feed too');
SELECT is(herald.horizon(), (SELECT max(pos) FROM herald.feed('*', 0, 10000, 10000000, 100000)), 'REPEATABLE READ: the horizon agrees');
SELECT is((SELECT content FROM herald.tail('*', 1)), 'later', 'REPEATABLE READ: tail too');
COMMIT;
SELECT is((SELECT string_agg(content, ',') FROM (
    SELECT * FROM dblink('other', $$ SELECT herald.send_message('s', NULL, 'same statement', topic => 'same') $$) AS x(id uuid)
    ) s, LATERAL herald.read('same', CASE WHEN s.id IS NULL THEN 1 ELSE 0 END)), 'same statement',
    'READ COMMITTED: a message committed while the statement runs is read');

-- Read only.
BEGIN READ ONLY;
SELECT is(t.contents('r:a', 0, 1), '3', 'reading needs no write');
SELECT throws_ok($$ SELECT herald.send_message('s', NULL, 'x', topic => 'x') $$, '25006', NULL, 'sending in a read only transaction is refused');
COMMIT;

SELECT dblink_disconnect('other') \g /dev/null
SELECT * FROM finish();
