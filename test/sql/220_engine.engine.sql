-- What the engine tells of itself: herald.engine, herald.senders, its settings and processes.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(40);
SELECT dblink_connect('ear', t.conninfo()), dblink_connect('other', t.conninfo()) \g /dev/null

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

-- Columns.
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
           WHERE attrelid = 'herald.engine'::regclass AND attnum > 0),
    'loaded boolean, next_position bigint, horizon bigint, reserved_to bigint, announced_to bigint, senders integer, '
    'oldest_sender timestamp with time zone, restamped_transactions bigint, restamped_messages bigint, dispatcher_pid integer, '
    'dispatcher_lag bigint, notifications bigint, notifications_per_second double precision, wake_ups bigint, '
    'next_delivery timestamp with time zone', 'herald.engine');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
           WHERE attrelid = 'herald.senders'::regclass AND attnum > 0),
    'pid integer, since timestamp with time zone, low_position bigint, state text, kind text', 'herald.senders');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
           WHERE attrelid = 'herald.scheduled'::regclass AND attnum > 0),
    (SELECT 'deliver_at timestamp with time zone, ' || string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = 'herald.message'::regclass AND attnum > 1), 'herald.scheduled: the log''s, with deliver_at for pos');
SELECT is_empty($$ SELECT attname FROM pg_attribute WHERE attrelid IN ('herald.engine'::regclass, 'herald.senders'::regclass)
    AND attnum > 0 AND col_description(attrelid, attnum) IS NULL AND attname <> 'pid' $$, 'columns are explained');

-- Before and after the first message.
SELECT is((SELECT count(*) FROM herald.engine), 1::bigint, 'always one row');
SELECT is((SELECT loaded FROM herald.engine), true, 'loaded');
SELECT herald.send_message('s', NULL, '1', topic => 'e') \g /dev/null
SELECT ok(t.until('SELECT dispatcher_pid IS NOT NULL FROM herald.engine'), 'a dispatcher runs');
SELECT is((SELECT (backend_type, datname = current_database(), application_name)::text FROM pg_stat_activity WHERE pid = (SELECT dispatcher_pid FROM herald.engine)),
    '("herald dispatcher",t,"herald dispatcher")', 'which pg_stat_activity shows');
SELECT is((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'herald dispatcher' AND datname = current_database()), 1::bigint, 'one for this database');
SELECT is((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'herald launcher'), 1::bigint, 'and one launcher for all');
SELECT ok((SELECT next_position = horizon + 1 AND reserved_to >= next_position FROM herald.engine), 'nothing in flight: the next position is above the horizon');
SELECT is((SELECT (senders, oldest_sender, next_delivery)::text FROM herald.engine), '(0,,)', 'nobody sends, nothing is scheduled');
SELECT ok(t.until('SELECT announced_to = horizon AND dispatcher_lag = 0 FROM herald.engine'), 'the dispatcher has gone over it');
SELECT is((SELECT horizon FROM herald.engine), herald.horizon(), 'the horizon is that of horizon()');

-- Counters.
SELECT is((SELECT notifications FROM herald.engine), 0::bigint, 'nobody listens: no NOTIFY');
SELECT dblink_exec('ear', 'LISTEN e; LISTEN elsewhere; LISTEN herald') \g /dev/null
SELECT wake_ups AS wake_ups FROM herald.engine \gset
SELECT herald.send_message('s', NULL, '2', topic => 'e') \g /dev/null
SELECT herald.send_message('s', NULL, '3', topic => 'not heard') AS third \gset
SELECT ok(t.until(format('SELECT announced_to >= pos FROM herald.engine, herald.messages WHERE id = %L', :'third')), 'two more messages');
SELECT ok((SELECT notifications BETWEEN 2 AND 3 FROM herald.engine), 'a NOTIFY for the one that is listened to, and the doorbell');
SELECT ok((SELECT wake_ups > :wake_ups FROM herald.engine), 'the dispatcher woke for it');
SELECT notifications AS notifications FROM herald.engine \gset
SELECT dblink_exec('ear', 'UNLISTEN *') \g /dev/null
SELECT herald.send_message('s', NULL, '4', topic => 'e') AS fourth \gset
SELECT ok(t.until(format('SELECT announced_to >= pos FROM herald.engine, herald.messages WHERE id = %L', :'fourth')), 'after UNLISTEN');
SELECT is((SELECT notifications FROM herald.engine), :notifications::bigint, 'there is no NOTIFY any more');
SELECT ok((SELECT notifications_per_second >= 0 FROM herald.engine), 'and a rate');

-- Transactions in flight.
BEGIN;
SELECT herald.send_message('s', NULL, '5', topic => 'e') \g /dev/null
SELECT herald.publish_batch('e', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 100) n)) \g /dev/null
SELECT is((SELECT string_agg(kind, ',' ORDER BY kind) FROM herald.senders WHERE pid = pg_backend_pid()), 'far,near', 'a sender with a near and a far hold');
SELECT is((SELECT senders FROM herald.engine), 1, 'is one sender');
SELECT is((SELECT low_position FROM herald.senders WHERE kind = 'near'), (SELECT pos FROM herald.messages WHERE content = '5' AND NOT is_json), 'low_position is where its positions begin');
SELECT ok((SELECT low_position <= pos FROM herald.senders, herald.messages WHERE kind = 'far' AND topic = 'e' AND is_json ORDER BY pos LIMIT 1), 'or below it');
SELECT ok((SELECT bool_and(next_position > low_position) FROM herald.engine, herald.senders WHERE kind = 'near'), 'the counter is past the near ones');
SELECT ok((SELECT bool_and(next_position < low_position) FROM herald.engine, herald.senders WHERE kind = 'far'), 'and far from the far ones');
SELECT dblink_exec('other', 'BEGIN') \g /dev/null
SELECT id FROM dblink('other', $$ SELECT herald.send_message('s', NULL, '6', topic => 'e') $$) AS x(id uuid) \g /dev/null
SELECT is((SELECT senders FROM herald.engine), 2, 'another one');
SELECT is((SELECT count(DISTINCT pid) FROM herald.senders), 2::bigint, 'each with its pid');
SELECT ok(t.until($$ SELECT herald.horizon() > 0 AND (SELECT state = 'late' FROM herald.senders WHERE pid = pg_backend_pid() AND kind = 'near') $$), 'who is overtaken by a horizon is late');
SELECT is((SELECT state FROM herald.senders WHERE kind = 'far'), 'open', 'with what others have gone past');
ROLLBACK;
SELECT is((SELECT senders FROM herald.engine), 1, 'after a rollback it is gone');
SELECT dblink_disconnect('other') \g /dev/null
SELECT ok(t.until('SELECT senders = 0 FROM herald.engine'), 'after the end of a session too');
BEGIN;
SELECT herald.read('e'), herald.tail('e'), herald.gap('e', 0), herald.horizon() \g /dev/null
SELECT herald.send_message('s', NULL, 'x', topic => 'e', deliver_at => now() + interval '1 day') \g /dev/null
SELECT is_empty('SELECT * FROM herald.senders', 'who reads or schedules holds nothing');
ROLLBACK;

-- A session that only calls what fails takes nothing.
SELECT next_position AS next FROM herald.engine \gset
SELECT t.fails($$ SELECT herald.send_message('s', NULL, NULL, topic => 'e') $$, '22004', 'content', 'a send that fails');
SELECT is((SELECT (next_position, senders)::text FROM herald.engine), format('(%s,0)', :next), 'takes no position');

-- The settings that are there only with the engine.
SELECT results_eq($$ SELECT name, vartype, coalesce(unit, '-'), boot_val, min_val, max_val, context FROM pg_settings
                     WHERE name IN ('herald.max_databases', 'herald.max_channels') ORDER BY name COLLATE "C" $$, $$ VALUES
    ('herald.max_channels', 'integer', '-', '4096', '16', '1000000', 'postmaster'),
    ('herald.max_databases', 'integer', '-', '16', '1', '1024', 'postmaster') $$, 'max_channels and max_databases');
SELECT is_empty($$ SELECT name FROM pg_settings WHERE name LIKE 'herald.max%' AND coalesce(short_desc, '') !~ '\.$' $$, 'are described');
SELECT throws_ok('SET herald.max_channels = 100', '55P02', NULL, 'max_channels is fixed at the start');
SELECT throws_ok('SET herald.max_databases = 100', '55P02', NULL, 'max_databases too');

SELECT dblink_disconnect('ear') \g /dev/null
SELECT * FROM finish();
