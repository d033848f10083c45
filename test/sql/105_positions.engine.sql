-- Positions and the horizon with the engine: what a reader finds and what not, holds that overtake
-- nobody, transactions that are late. Other sessions are dblink connections: a and b.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(53);
SELECT dblink_connect('a', t.conninfo()), dblink_connect('b', t.conninfo()) \g /dev/null

CREATE FUNCTION t.send(who text, content text, topic text) RETURNS uuid LANGUAGE sql AS $$
    SELECT id FROM dblink(who, format('SELECT herald.send_message(NULL, NULL, %L, topic => %L)', content, topic)) AS x(id uuid) $$;
CREATE FUNCTION t.contents_for(who text, topic text) RETURNS text LANGUAGE sql AS $$
    SELECT contents FROM dblink(who, format('SELECT t.contents(%L)', topic)) AS x(contents text) $$;
-- Waits until a condition holds; it will, or something is wrong.
CREATE FUNCTION t.until(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '30 seconds';
    holds boolean;
BEGIN
    LOOP
        EXECUTE condition INTO holds;
        IF holds THEN RETURN true; END IF;
        IF clock_timestamp() > give_up THEN RETURN false; END IF;
    END LOOP;
END $$;

-- Numbers are reserved ahead: the horizon is at or above the last message, and below the next.
SELECT is(t.contents('*'), '', 'an empty log');
SELECT is((SELECT pos FROM herald.feed(NULL, 0, 10, 1000, 1000)), herald.horizon(), 'its feed is complete up to the horizon');
SELECT is(herald.tail_start('a', 10), herald.horizon(), 'where its tail starts');
SELECT t.send('a', n::text, 'n') FROM generate_series(1, 30) n \g /dev/null
SELECT is(t.contents('n'), (SELECT string_agg(n::text, ',' ORDER BY n) FROM generate_series(1, 30) n), 'the order of the sends');
SELECT ok((SELECT horizon >= (SELECT max(pos) FROM herald.messages) AND next_position > horizon AND reserved_to >= next_position FROM herald.engine),
    'last message <= horizon < next position <= reserved_to');
SELECT ok((SELECT bool_and(pos BETWEEN 1 AND 9007199254740991) FROM herald.messages), 'all are safe in JavaScript');

-- A transaction reads up to the horizon: not what it has itself sent.
BEGIN;
SELECT herald.send_message('s', NULL, 'mine', topic => 'own', conversation => 'own') AS mine \gset
SELECT is(t.contents('own'), '', 'read: not one''s own before the commit');
SELECT is_empty($$ SELECT * FROM herald.tail('own') $$, 'tail');
SELECT is_empty($$ SELECT * FROM herald.conversation('own') $$, 'conversation');
SELECT is_empty($$ SELECT * FROM herald.feed('own', 0, 10, 1000, 1000) WHERE topic IS NOT NULL $$, 'feed');
SELECT is(t.shown('own'), 'mine', 'the view shows it');
SELECT is((SELECT content FROM herald.message_by_id(:'mine')), 'mine', 'message_by_id too');
SELECT ok((SELECT herald.horizon() < pos FROM herald.messages WHERE id = :'mine'), 'the horizon is below it');
SELECT is((SELECT (pid = pg_backend_pid(), state, kind, low_position <= (SELECT pos FROM herald.messages WHERE id = :'mine'),
                   since BETWEEN now() - interval '1 second' AND clock_timestamp())::text FROM herald.senders), '(t,open,near,t,t)', 'herald.senders shows it');
SELECT is((SELECT senders FROM herald.engine), 1, 'herald.engine counts it');
SELECT ok((SELECT oldest_sender BETWEEN now() - interval '1 second' AND clock_timestamp() FROM herald.engine), 'and says since when');
COMMIT;
SELECT is(t.contents('own'), 'mine', 'after the commit it is read at once');
SELECT is((SELECT (senders, oldest_sender)::text FROM herald.engine), '(0,)', 'nobody is in flight');
SELECT is_empty('SELECT * FROM herald.senders', 'nobody');

-- Overtaken: an open transaction that others have sent after. Its messages arrive at its commit, above
-- what has been read; they keep their ids and their order.
SELECT restamped_transactions AS t0, restamped_messages AS m0 FROM herald.engine \gset
BEGIN;
CREATE TEMP TABLE mine AS SELECT n, herald.send_message('s', NULL, 'late ' || n, topic => 'late') AS id FROM generate_series(1, 3) n;
SELECT max(pos) AS was FROM herald.messages WHERE topic = 'late' \gset
SELECT t.send('a', 'other', 'late') AS other \gset
SELECT ok(t.until($$ SELECT t.contents_for('b', 'late') = 'other' $$), 'the other''s message is read while this transaction is open');
SELECT is((SELECT (state, kind)::text FROM herald.senders), '(late,near)', 'herald.senders says late');
SELECT ok(herald.horizon() >= :was, 'the horizon has passed it');
SELECT max(pos) AS reached FROM herald.messages WHERE id = :'other' \gset
SELECT herald.send_message('s', NULL, 'late 4', topic => 'late') AS fourth \gset
SELECT is(t.contents_for('b', 'late'), 'other', 'what it sends now is not read either');
COMMIT;
SELECT is(t.contents('late'), 'other,late 1,late 2,late 3,late 4', 'its messages arrive at the commit, in their order');
SELECT is(t.contents('late', :reached), 'late 1,late 2,late 3,late 4', 'above what had been read');
SELECT is((SELECT array_agg(m.id ORDER BY m.pos) FROM herald.messages m WHERE m.content LIKE 'late _'),
    (SELECT array_agg(id ORDER BY n) FROM mine) || :'fourth'::uuid, 'with the ids they had');
SELECT is((SELECT (restamped_transactions - :t0, restamped_messages - :m0)::text FROM herald.engine), '(1,3)',
    'what it sent when it knew that it was late had not to be renumbered');
BEGIN;
SELECT herald.send_message('s', NULL, 'never', topic => 'late') \g /dev/null
SELECT t.send('a', 'other 2', 'late') \g /dev/null
SELECT ok(t.until($$ SELECT state = 'late' FROM herald.senders $$), 'late again');
ROLLBACK;
SELECT is(t.contents('late', :reached), 'late 1,late 2,late 3,late 4,other 2', 'a rollback takes late messages back');
SELECT is_empty('SELECT * FROM herald.senders', 'nothing is left of it');

-- Late, with savepoints that were undone.
BEGIN;
SELECT herald.send_message('s', NULL, '1', topic => 'sp') \g /dev/null
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'undone', topic => 'sp') \g /dev/null
ROLLBACK TO s;
SELECT herald.send_message('s', NULL, '2', topic => 'sp') \g /dev/null
SELECT t.send('a', 'other', 'sp') \g /dev/null
SELECT ok(t.until($$ SELECT state = 'late' FROM herald.senders $$), 'late after a savepoint');
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'undone', topic => 'sp') \g /dev/null
ROLLBACK TO s;
INSERT INTO herald.message (topic, content) VALUES ('sp', '3');
COMMIT;
SELECT is(t.contents('sp'), 'other,1,2,3', 'what is kept, in its order');

-- Many: the first 32 are near, what follows is far ahead and is not written twice.
SELECT restamped_messages AS m0 FROM herald.engine \gset
BEGIN;
SELECT herald.send_message('s', NULL, n::text, topic => 'many') FROM generate_series(1, 200) n \g /dev/null
SELECT is((SELECT string_agg(kind, ',' ORDER BY kind) FROM herald.senders), 'far,near', 'two holds');
SELECT t.send('a', 'other', 'other') \g /dev/null
SELECT ok(t.until($$ SELECT bool_or(state = 'late' AND kind = 'near') FROM herald.senders $$), 'late');
COMMIT;
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'many'), (SELECT array_agg(n) FROM generate_series(1, 200) n),
    '200 in their order');
SELECT is((SELECT restamped_messages - :m0 FROM herald.engine), 32::bigint, '32 were renumbered');

-- A batch, an INSERT … SELECT of many, a COPY: ahead of the counter, nobody waits for them and they are not renumbered.
SELECT restamped_messages AS m0 FROM herald.engine \gset
BEGIN;
SELECT herald.publish_batch('batch', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 1000) n)) \g /dev/null
SELECT t.send('a', 'other', 'beside') \g /dev/null
SELECT is(t.contents('beside'), 'other', 'what is sent beside an open batch is read at once');
SELECT is((SELECT (kind, state, since)::text FROM herald.senders), '(far,open,)', 'it holds nobody back');
SELECT max(pos) AS reached FROM herald.read('beside') \gset
COPY herald.message (topic, content) FROM STDIN;
batch	1001
batch	1002
\.
SELECT is(t.contents('batch'), '', 'nothing of it is read before the commit');
COMMIT;
SELECT is((SELECT array_agg(content::int ORDER BY pos) FROM herald.messages WHERE topic = 'batch'), (SELECT array_agg(n) FROM generate_series(1, 1002) n),
    'it arrives in its order');
SELECT is((SELECT count(*) FROM herald.read('batch', :reached, 10000)), 1002::bigint, 'all above what had been read');
SELECT is((SELECT restamped_messages - :m0 FROM herald.engine), 0::bigint, 'nothing is written twice');
SELECT t.send('a', 'after', 'batch') \g /dev/null
SELECT is((SELECT content FROM herald.tail('batch', 1)), 'after', 'what is sent after its commit comes after it');

-- Numbers that were seen before a rollback are not given to others.
CREATE FUNCTION t.rolled_back_load() RETURNS int8range LANGUAGE plpgsql AS $$
DECLARE
    seen int8range;
BEGIN
    PERFORM herald.publish_batch('undone', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n));
    SELECT int8range(min(pos), max(pos), '[]') INTO seen FROM herald.messages WHERE topic = 'undone';
    RAISE EXCEPTION 'undo' USING DETAIL = seen::text;
EXCEPTION WHEN raise_exception THEN
    GET STACKED DIAGNOSTICS seen = PG_EXCEPTION_DETAIL;
    RETURN seen;
END $$;
BEGIN; SELECT t.rolled_back_load() AS first \gset
ROLLBACK;
BEGIN; SELECT t.rolled_back_load() AS second \gset
ROLLBACK;
SELECT ok(:'first'::int8range << :'second'::int8range, 'a second load that is rolled back had other positions than the first');
SELECT t.send('a', 'x', 'x') \g /dev/null
SELECT ok((SELECT pos FROM herald.tail('x', 1)) > upper(:'second'::int8range) - 1, 'and so has what is sent after it');

-- A batch that failed leaves nothing to the next sends of its session.
SELECT pos AS p0 FROM herald.tail('x', 1) \gset
SELECT throws_ok($$ SELECT * FROM dblink('a', 'SELECT herald.send_batch((SELECT jsonb_agg(jsonb_build_object(''content'', NULL)) FROM generate_series(1, 5000) n))') AS x(id uuid) $$, '22004', NULL, 'a large batch that fails');
SELECT t.send('a', 'y', 'x') \g /dev/null
SELECT ok((SELECT pos FROM herald.tail('x', 1)) - :p0 < 1000, 'what is sent next is not taken for a load');

-- Sessions that send while others are open wait for nobody, also for a topic that is new to all.
SELECT dblink_exec('a', 'BEGIN'), dblink_exec('b', 'BEGIN') \g /dev/null
SELECT t.send('a', 'a', 'new'), t.send('b', 'b', 'new') \g /dev/null
SELECT herald.send_message('s', NULL, 'mine', topic => 'new') \g /dev/null
SELECT dblink_exec('b', 'COMMIT'), dblink_exec('a', 'ROLLBACK') \g /dev/null
SELECT is((SELECT array_agg(content ORDER BY content) FROM herald.messages WHERE topic = 'new'), '{b,mine}', 'three sessions make a topic; one rolls back');
SELECT ok(t.until($$ SELECT count(*) = 2 FROM herald.read('new') $$), 'both are read');

-- An extension that is dropped and made anew begins anew; not in a transaction that has sent.
BEGIN;
SELECT herald.send_message('s', NULL, 'x', topic => 'x') \g /dev/null
DROP EXTENSION pg_herald CASCADE;
CREATE EXTENSION pg_herald;
SELECT throws_ok($$ SELECT herald.send_message('s', NULL, 'x', topic => 'x') $$, '55006', NULL, 'send, DROP, CREATE, send in one transaction is refused');
ROLLBACK;
SELECT is(t.contents('late', :reached - 1000000), t.contents('late'), 'a DROP that was rolled back never was');
SELECT max(pos) AS last FROM herald.messages \gset
BEGIN;
DROP EXTENSION pg_herald CASCADE;
CREATE EXTENSION pg_herald;
SELECT herald.send_message('s', NULL, 'x', topic => 'x') \g /dev/null
COMMIT;
SELECT is((SELECT string_agg(content, ',') FROM herald.read('*')), 'x', 'DROP, CREATE and send in one transaction');
SELECT is((SELECT count(*) FROM herald.message), 1::bigint, 'the old log is gone');

SELECT dblink_disconnect('a'), dblink_disconnect('b') \g /dev/null
SELECT * FROM finish();
