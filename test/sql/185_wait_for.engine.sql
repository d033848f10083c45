-- wait_for: the messages above a position, as soon as there are any. The session that waits is a
-- dblink connection; that it really sleeps is seen in pg_stat_activity.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(55);
SELECT dblink_connect('waiter', t.conninfo()) \g /dev/null
SELECT pid AS waiter FROM dblink('waiter', 'SELECT pg_backend_pid()') AS x(pid int) \gset
SELECT set_config('t.waiter', :'waiter', false) \g /dev/null

CREATE FUNCTION t.until(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '30 seconds';
    holds boolean;
BEGIN
    LOOP
        EXECUTE condition INTO holds;
        IF holds THEN RETURN true; END IF;
        IF clock_timestamp() > give_up THEN RETURN false; END IF;
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END $$;
-- Lets the other session start to wait; gives whether it sleeps.
CREATE FUNCTION t.wait(topics text, after bigint DEFAULT 0, timeout interval DEFAULT '30 seconds') RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dblink_send_query('waiter', format('SELECT content FROM herald.wait_for(%L, %s, %L)', topics, after, timeout));
    RETURN t.until('SELECT state = ''active'' AND wait_event_type = ''Extension'' FROM pg_stat_activity WHERE pid = ' || current_setting('t.waiter'));
END $$;
-- What the other session got.
CREATE FUNCTION t.got() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    SELECT coalesce(string_agg(content, ','), '') INTO result FROM dblink_get_result('waiter') AS x(content text);
    PERFORM FROM dblink_get_result('waiter') AS x(content text);  -- the end of its results
    RETURN result;
END $$;

-- The state of a statement that is cancelled, which t.error_of does not catch.
CREATE FUNCTION t.cancelled(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN query_canceled THEN
    RETURN SQLSTATE;
END $$;

-- Nothing to wait for.
SELECT is_empty($$ SELECT * FROM herald.wait_for('w', 0, '0') $$, 'no time, nothing there: no rows');
SELECT clock_timestamp() AS begun \gset
SELECT is_empty($$ SELECT * FROM herald.wait_for('w', 0, '30 milliseconds') $$, 'nothing comes: no rows');
SELECT ok(clock_timestamp() - :'begun' >= interval '30 milliseconds', 'after the timeout, not before');
SELECT ok(clock_timestamp() - :'begun' < interval '10 seconds', 'and not long after');
SELECT is_empty($$ SELECT * FROM herald.wait_for('w*', 0, '1 millisecond') $$, 'with a pattern too');
SELECT herald.send_message('s', 'r', n::text, topic => (ARRAY['w', 'w:a', 'w:b'])[n % 3 + 1], conversation => 'c') FROM generate_series(1, 9) n \g /dev/null
SELECT results_eq($$ SELECT * FROM herald.wait_for('w', 0, '30 seconds') $$, $$ SELECT * FROM herald.read('w') $$, 'what is there is given at once, as read gives it');
SELECT results_eq($$ SELECT * FROM herald.wait_for('w:?', 0, '30 seconds') $$, $$ SELECT * FROM herald.read('w:?') $$, 'of a pattern');
SELECT results_eq($$ SELECT * FROM herald.wait_for('*', 0, '0') $$, $$ SELECT * FROM herald.read('*') $$, 'of everything, with no time');
SELECT pos AS third FROM herald.messages WHERE content = '3' \gset
SELECT is((SELECT string_agg(content, ',') FROM herald.wait_for('w', :third, '30 seconds')), '6,9', 'after is exclusive');
SELECT is_empty($$ SELECT * FROM herald.wait_for('w', herald.horizon(), '0') $$, 'nothing above the horizon');
SELECT is_empty($$ SELECT * FROM herald.wait_for('w', 9007199254740991, '1 millisecond') $$, 'nor far above');
SELECT herald.publish_batch('many', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 150) n)) \g /dev/null
SELECT is((SELECT array_agg(content::int) FROM herald.wait_for('many', 0, '30 seconds')), (SELECT array_agg(n) FROM generate_series(1, 100) n), 'at most 100: the first');
SELECT is((SELECT count(*) FROM herald.wait_for('many', (SELECT max(pos) FROM herald.read('many')), '30 seconds')), 50::bigint, 'then the rest');
SELECT is((SELECT (m).content FROM (SELECT herald.wait_for('w', 0, '30 seconds') AS m LIMIT 1) r), '3', 'in a SELECT list, under a LIMIT');
SELECT herald.send_message('s', NULL, 'gone', topic => 'expired', ttl => '1 microsecond') \g /dev/null
SELECT is_empty($$ SELECT * FROM herald.wait_for('expired', 0, '5 milliseconds') $$, 'an expired message is none');

-- Woken by a commit.
SELECT ok(t.wait('wake'), 'it sleeps');
SELECT herald.send_message('s', NULL, 'up!', topic => 'wake') \g /dev/null
SELECT is(t.got(), 'up!', 'a message wakes it');
SELECT ok(t.wait('wak?:*'), 'with a pattern');
SELECT herald.publish('wake:1', '1') \g /dev/null
SELECT is(t.got(), '1', 'a message wakes it');
SELECT ok(t.wait('inserted'), 'for whatever way it comes');
INSERT INTO herald.message (topic, content) VALUES ('inserted', 'x'), ('inserted', 'y');
SELECT is(t.got(), 'x,y', 'INSERT: all of it together');
SELECT ok(t.wait('batch'), 'for a batch');
SELECT herald.publish_batch('batch', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n)) \g /dev/null
SELECT is(t.got(), (SELECT string_agg(n::text, ',' ORDER BY n) FROM generate_series(1, 100) n), 'its first hundred');
SELECT ok(t.wait('due'), 'for a scheduled message');
SELECT herald.send_message('s', NULL, 'due', topic => 'due', deliver_at => clock_timestamp() + interval '20 milliseconds') \g /dev/null
SELECT is(t.got(), 'due', 'when it is due');

-- Many that wait are all woken.
SELECT dblink_connect('w' || n, t.conninfo()) FROM generate_series(1, 10) n \g /dev/null
SELECT dblink_send_query('w' || n, format($$ SELECT content FROM herald.wait_for(%L, 0, '30 seconds') $$, (ARRAY['all', 'al?'])[n % 2 + 1]))
FROM generate_series(1, 10) n \g /dev/null
SELECT ok(t.until($$ SELECT count(*) = 10 FROM pg_stat_activity WHERE query LIKE '%wait_for(''al%' AND state = 'active' AND wait_event_type = 'Extension' $$),
    'ten sleep');
SELECT herald.send_message('s', NULL, 'to all', topic => 'all') \g /dev/null
SELECT is((SELECT count(*) FROM generate_series(1, 10) n, dblink_get_result('w' || n) AS x(content text) WHERE content = 'to all'), 10::bigint, 'one message wakes them');
SELECT is((SELECT count(dblink_disconnect('w' || n)) FROM generate_series(1, 10) n), 10::bigint, 'all');

-- Not woken by what is not for it.
SELECT ok(t.wait('mine'), 'it sleeps');
SELECT herald.send_message('s', NULL, 'x', topic => 'other') \g /dev/null
BEGIN;
SELECT herald.send_message('s', NULL, 'never', topic => 'mine') \g /dev/null
ROLLBACK;
BEGIN;
SELECT herald.send_message('s', NULL, 'first', topic => 'mine') \g /dev/null
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'undone', topic => 'mine') \g /dev/null
ROLLBACK TO s;
SELECT ok((SELECT state = 'active' FROM pg_stat_activity WHERE pid = :waiter), 'an open transaction does not end the wait');
COMMIT;
SELECT is(t.got(), 'first', 'nothing of another topic, nothing that was rolled back');

-- What it sees: committed messages, whatever its transaction's snapshot; not its own before their commit.
SELECT dblink_exec('waiter', 'BEGIN ISOLATION LEVEL REPEATABLE READ') \g /dev/null
SELECT n FROM dblink('waiter', 'SELECT count(*) FROM herald.messages') AS x(n bigint) \g /dev/null
SELECT ok(t.wait('rr'), 'in REPEATABLE READ');
SELECT herald.send_message('s', NULL, 'new', topic => 'rr') \g /dev/null
SELECT is(t.got(), 'new', 'a message committed since is found');
SELECT dblink_exec('waiter', 'COMMIT') \g /dev/null
BEGIN;
SELECT herald.send_message('s', NULL, 'mine', topic => 'self') \g /dev/null
SELECT is_empty($$ SELECT * FROM herald.wait_for('self', 0, '0') $$, 'one''s own message is not waited for');
COMMIT;
SELECT is((SELECT content FROM herald.wait_for('self', 0, '0')), 'mine', 'it is there after the commit');
SELECT dblink_exec('waiter', 'BEGIN') \g /dev/null
SELECT id FROM dblink('waiter', $$ SELECT herald.send_message('s', NULL, 'question', topic => 'asked') $$) AS x(id uuid) \g /dev/null
SELECT ok(t.wait('answer'), 'a transaction that has sent waits');
SELECT herald.send_message('s', NULL, 'answer', topic => 'answer') \g /dev/null
SELECT is(t.got(), 'answer', 'for what others send: it holds itself up no longer than others');
SELECT dblink_exec('waiter', 'COMMIT') \g /dev/null
SELECT is((SELECT content FROM herald.read('asked')), 'question', 'and its own message arrives');

-- While it sleeps it keeps vacuum from nothing, and ends when it is told to.
SELECT ok(t.wait('quiet'), 'it sleeps');
SELECT is((SELECT backend_xmin FROM pg_stat_activity WHERE pid = :waiter), NULL, 'without a snapshot');
SELECT pg_cancel_backend(:waiter) \g /dev/null
SELECT is(t.cancelled('SELECT t.got()'), '57014', 'it can be cancelled');
SELECT t.got() \g /dev/null
SELECT ok(t.wait('quiet', 0, '1 hour'), 'and waits again');
SELECT is(dblink_cancel_query('waiter'), 'OK', 'the client too');
SELECT is(t.cancelled('SELECT t.got()'), '57014', 'cancels it');
SELECT t.got() \g /dev/null
SET statement_timeout = '1s';
SELECT is(t.cancelled($$ SELECT herald.wait_for('quiet', 0, '30 seconds') $$), '57014', 'statement_timeout ends it');
RESET statement_timeout;
BEGIN READ ONLY;
SELECT is((SELECT count(*) FROM herald.wait_for('w', 0, '30 seconds')), 3::bigint, 'waiting needs no write');
COMMIT;

-- Bad arguments.
SELECT t.fails(format('SELECT herald.wait_for(%s)', arguments), state, message, arguments)
FROM (VALUES ('NULL, 0, ''1 s''', '22004', 'topics'), ('''a'', NULL, ''1 s''', '22004', 'after'), ('''a'', 0, NULL', '22004', 'timeout'),
    ('''a'', -1, ''1 s''', '22023', 'after.*-1'), ('''a'', 0, ''-1 s''', '22023', 'timeout.*-00:00:01'),
    ('''a'', 0, ''1 day -25 hours''', '22023', 'timeout'), ('''a'', 0, ''10 years''', '22023', 'timeout'),
    ('''a[b]'', 0, ''1 s''', '22023', 'a\[b\]'), (''''', 0, ''1 s''', '22023', 'topic')) AS bad(arguments, state, message);

SELECT dblink_disconnect('waiter') \g /dev/null
SELECT * FROM finish();
