-- herald.notify = off: messages are stored and not announced. Without the engine the sender's own
-- setting counts.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(4);

SELECT dblink_connect('ear', t.conninfo()) \g /dev/null
SELECT dblink_exec('ear', 'LISTEN a; LISTEN herald') \g /dev/null
CREATE FUNCTION t.hear() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM dblink('ear', 'SELECT 1') AS x(n int);
    RETURN coalesce((SELECT string_agg(notify_name, ',') FROM dblink_get_notify('ear')), '');
END $$;

SET herald.notify = off;
SELECT herald.send_message('pm', NULL, 'quiet', topic => 'a') AS id \gset
INSERT INTO herald.message (topic, content) VALUES ('a', 'quiet too');
SELECT is(t.hear(), '', 'silence');
SELECT is(t.contents('a'), 'quiet,quiet too', 'but stored');
RESET herald.notify;
SELECT herald.send_message('pm', NULL, 'loud', topic => 'a') \g /dev/null
SELECT is(t.hear(), 'a,herald', 'on again');
SET herald.notify = off;
BEGIN;
SET LOCAL herald.notify = on;
SELECT herald.send_message('pm', NULL, 'loud', topic => 'a') \g /dev/null
COMMIT;
SELECT is(t.hear(), 'a,herald', 'for one transaction');

SELECT dblink_disconnect('ear') \g /dev/null
SELECT * FROM finish();
