-- herald.notify = off: messages are stored and not announced. With the engine the dispatcher's own
-- setting counts, not that of a sender.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(8);

SELECT dblink_connect('ear', t.conninfo()) \g /dev/null
SELECT dblink_exec('ear', 'LISTEN a; LISTEN herald') \g /dev/null

-- Sends until the dispatcher has gone over a message: then nothing more is to come for it.
CREATE FUNCTION t.heard(content text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '30 seconds';
    at bigint;
    result text := '';
    message uuid;
BEGIN
    SELECT id INTO message FROM dblink('mouth', format('SELECT herald.send_message(NULL, NULL, %L, topic => ''a'')', content)) AS x(id uuid);
    SELECT pos INTO at FROM herald.messages WHERE id = message;
    -- A notification may be on its way a little after announced_to has moved: so one more is needed.
    LOOP
        PERFORM * FROM dblink('ear', 'SELECT 1') AS x(n int);
        result := result || coalesce((SELECT string_agg(CASE notify_name WHEN 'a' THEN extra::json ->> 'content' ELSE '!' END, '')
                                      FROM dblink_get_notify('ear')), '');
        EXIT WHEN result LIKE '%!' AND position(content IN result) > 0;
        EXIT WHEN (SELECT announced_to >= at AND dispatcher_lag = 0 FROM herald.engine) AND NOT t.announces();
        IF clock_timestamp() > give_up THEN RAISE 'nothing was heard of %', content; END IF;
    END LOOP;
    RETURN result;
END $$;
CREATE FUNCTION t.announces() RETURNS boolean LANGUAGE sql AS $$ SELECT current_setting('t.announces')::boolean $$;
-- Waits for another dispatcher than this one.
CREATE FUNCTION t.dispatcher_after(old int) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '30 seconds';
BEGIN
    WHILE (SELECT dispatcher_pid IS NULL OR dispatcher_pid = old FROM herald.engine) LOOP
        IF clock_timestamp() > give_up THEN RETURN false; END IF;
    END LOOP;
    RETURN true;
END $$;
SELECT dblink_connect('mouth', t.conninfo()) \g /dev/null

SET t.announces = on;
SELECT is(t.heard('loud'), 'loud!', 'on');
SELECT dblink_exec('mouth', 'SET herald.notify = off') \g /dev/null
SELECT is(t.heard('louder'), 'louder!', 'a sender''s own setting does not count');

-- For the database, from the dispatcher's next start on.
SELECT format('ALTER DATABASE %I SET herald.notify = off', current_database()) AS off,
       format('ALTER DATABASE %I RESET herald.notify', current_database()) AS reset \gset
:off;
SELECT dispatcher_pid AS old FROM herald.engine \gset
SELECT pg_terminate_backend(:old) \g /dev/null
SELECT ok(t.dispatcher_after(:old), 'a new dispatcher runs');
SET t.announces = off;
SELECT notifications AS before FROM herald.engine \gset
SELECT is(t.heard('quiet'), '', 'off: silence');
SELECT is((SELECT content FROM herald.tail('a', 1)), 'quiet', 'but stored');
SELECT is((SELECT notifications FROM herald.engine), :before::bigint, 'and no NOTIFY was sent');
:reset;
SELECT dispatcher_pid AS old FROM herald.engine \gset
SELECT pg_terminate_backend(:old) \g /dev/null
SELECT ok(t.dispatcher_after(:old), 'a new dispatcher runs');
SET t.announces = on;
SELECT is(t.heard('loud again'), 'loud again!', 'on again: what was sent meanwhile is not announced late');

SELECT dblink_disconnect('ear'), dblink_disconnect('mouth') \g /dev/null
SELECT * FROM finish();
