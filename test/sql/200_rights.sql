-- Rights: without a grant nothing works; a grant on one function opens that function; and nobody's
-- search_path gets code run as the owner of the log.
SELECT herald.send_message('s', NULL, 'secret', topic => 'r', conversation => 'c') AS id \gset
BEGIN;
\ir helpers.psql
CREATE ROLE herald_test_nobody;
CREATE ROLE herald_test_sender;
CREATE ROLE herald_test_reader;
CREATE ROLE herald_test_owner;
CREATE ROLE herald_test_mallory;
GRANT USAGE ON SCHEMA t TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA t TO PUBLIC;
SELECT plan(118);

-- What a role may do is asked in its name; the answer is an SQLSTATE, or NULL for success.
CREATE FUNCTION t.as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    e t.error;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    e := t.error_of(statement);
    RESET ROLE;
    RETURN e.state;
END $$;
CREATE FUNCTION t.does(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE statement INTO result;
    RESET ROLE;
    RETURN result;
END $$;
CREATE TABLE public.watched (id int);
CREATE TABLE public.theirs (id int);
ALTER TABLE public.theirs OWNER TO herald_test_owner;

-- Nobody: every function, with and without USAGE on the schema.
CREATE TEMP TABLE call (statement text);
INSERT INTO call VALUES
    ($$ SELECT herald.send_message('s', 'r', 'c') $$), ($$ SELECT herald.publish('a', '1') $$), ($$ SELECT herald.send_batch('[]') $$),
    ($$ SELECT herald.publish_batch('a', '{1}') $$), ($$ SELECT herald.reply(gen_random_uuid(), 'c') $$),
    ($$ SELECT herald.watch('public.watched', 'a') $$), ($$ SELECT herald.unwatch('public.watched') $$), ($$ SELECT herald.read('r') $$),
    ($$ SELECT herald.tail('r') $$), ($$ SELECT herald.conversation('c') $$), ($$ SELECT herald.message_by_id(gen_random_uuid()) $$),
    ($$ SELECT herald.wait_for('a', 0, '1 s') $$), ($$ SELECT herald.cancel(gen_random_uuid()) $$),
    ($$ SELECT herald.channel('a') $$), ($$ SELECT herald.horizon() $$), ($$ SELECT herald.matches('a', 'a') $$),
    ($$ SELECT herald.create_topic('a') $$), ($$ SELECT herald.drop_topic('r') $$), ($$ SELECT herald.maintain() $$),
    ($$ SELECT herald.set_retention('r', '1 day') $$), ($$ SELECT herald.reset_retention('r') $$), ($$ SELECT herald.trim('r', 1) $$),
    ($$ SELECT herald.trim('r', now()) $$), ($$ SELECT herald.let_go('r', 1, 'retention') $$), ($$ SELECT herald.take_books(false) $$),
    ($$ SELECT herald.recount(0, 1) $$), ($$ SELECT herald.maintain_at(now()) $$), ($$ DELETE FROM herald.retention $$),
    ($$ SELECT FROM herald.topic_segment $$), ($$ SELECT FROM herald.book $$), ($$ DELETE FROM herald.mark $$),
    ($$ SELECT herald.feed(NULL, 0, 10, 1000, 1000) $$), ($$ SELECT herald.gap('r', 0) $$), ($$ SELECT herald.tail_start('r', 1) $$),
    ($$ SELECT FROM herald.messages $$), ($$ SELECT FROM herald.message $$), ($$ SELECT FROM herald.topics $$),
    ($$ SELECT FROM herald.engine $$), ($$ SELECT FROM herald.senders $$), ($$ SELECT FROM herald.scheduled $$),
    ($$ SELECT herald.engine_state() $$), ($$ SELECT herald.engine_senders() $$),
    ($$ INSERT INTO herald.message (topic, content) VALUES ('a', 'x') $$), ($$ DELETE FROM herald.message $$),
    ($$ SELECT herald.put_payload('x') $$), ($$ SELECT herald.payload_open() $$), ($$ SELECT herald.payload_write(gen_random_uuid(), 'x') $$),
    ($$ SELECT herald.payload_close(gen_random_uuid()) $$), ($$ SELECT herald.payload_abort(gen_random_uuid()) $$),
    ($$ SELECT herald.payload_read(gen_random_uuid()) $$), ($$ SELECT herald.payload_stored(gen_random_uuid(), 0, 1) $$),
    ($$ SELECT herald.send_payload(gen_random_uuid()) $$), ($$ SELECT herald.free_chunks(gen_random_uuid(), 0) $$),
    ($$ SELECT herald.keep_payloads('infinity') $$), ($$ SELECT herald.remove_payloads() $$), ($$ SELECT herald.remove_payloads(0) $$),
    ($$ SELECT FROM herald.payload $$), ($$ SELECT FROM herald.payload_chunk $$), ($$ SELECT FROM herald.payload_0 $$),
    ($$ SELECT FROM herald.payloads $$), ($$ SELECT FROM herald.payload_segments $$), ($$ SELECT FROM herald.waste $$), ($$ DELETE FROM herald.payload_audit $$),
    ($$ INSERT INTO herald.payload_restore (payload, segment, bytes) VALUES (gen_random_uuid(), 0, 1) $$),
    ($$ SELECT herald.alter_topic('r', 'x') $$), ($$ SELECT herald.archive_to('r', '/tmp') $$),
    ($$ SELECT herald.archive_to('r', 'public.watched'::regclass) $$), ($$ SELECT herald.stop_archive('r') $$),
    ($$ SELECT herald.read_archive('/tmp') $$), ($$ SELECT FROM herald.archives $$), ($$ DELETE FROM herald.archive $$),
    ($$ SELECT herald.add_archive('r', '/tmp', NULL, 'postgres', 0) $$),
    ($$ SELECT herald.write_archive('r', '/tmp', NULL, 'postgres', 0) $$),
    ($$ TRUNCATE herald.message $$), ($$ CREATE TABLE herald.mine (x int) $$);
SELECT is(t.as('herald_test_nobody', statement), '42501', 'no grants:' || statement) FROM call;
GRANT USAGE ON SCHEMA herald TO herald_test_nobody, herald_test_sender, herald_test_reader, herald_test_owner, herald_test_mallory;
SELECT is((SELECT string_agg(statement, ',') FROM call WHERE t.as('herald_test_nobody', statement) IS DISTINCT FROM '42501'), NULL,
    'with USAGE on the schema still nothing works');
SELECT is((SELECT string_agg(oid::regprocedure::text, ',') FROM pg_proc WHERE pronamespace = 'herald'::regnamespace
           AND has_function_privilege('herald_test_nobody', oid, 'EXECUTE')), NULL, 'not one function');
SELECT is((SELECT string_agg(oid::regclass::text, ',') FROM pg_class WHERE relnamespace = 'herald'::regnamespace AND relkind IN ('r', 'p', 'v')
           AND has_table_privilege('herald_test_nobody', oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER')), NULL,
    'not one table, segments included');

-- EXECUTE on send_message: sends, and only that.
GRANT EXECUTE ON FUNCTION herald.send_message TO herald_test_sender;
SELECT isnt(t.does('herald_test_sender', $$ SELECT herald.send_message('pm', 'dev', 'mine', idempotency_key => 'k') $$), NULL, 'a sender sends');
SELECT is((SELECT count(*) FROM herald.messages WHERE content = 'mine'), 1::bigint, 'which is stored');
SELECT is(t.does('herald_test_sender', $$ SELECT herald.send_message('pm', 'dev', 'mine', idempotency_key => 'k') $$),
    (SELECT id::text FROM herald.messages WHERE content = 'mine'), 'idempotency works for it');
SELECT is((SELECT string_agg(statement, ',') FROM call WHERE statement !~ 'send_message'
           AND t.as('herald_test_sender', statement) IS DISTINCT FROM '42501'), NULL, 'everything else is refused');
SELECT is(t.as('herald_test_sender', $$ SELECT herald.send_message('pm', 'dev', NULL) $$), '22004', 'errors are the same for it');

-- EXECUTE on read: reads, and only that.
GRANT EXECUTE ON FUNCTION herald.read TO herald_test_reader;
SELECT is(t.does('herald_test_reader', $$ SELECT content FROM herald.read('r') $$), 'secret', 'a reader reads');
SELECT is((SELECT string_agg(statement, ',') FROM call WHERE statement !~ 'read'
           AND t.as('herald_test_reader', statement) IS DISTINCT FROM '42501'), NULL, 'everything else is refused');
GRANT SELECT ON herald.messages TO herald_test_reader;
SELECT is(t.does('herald_test_reader', $$ SELECT content FROM herald.messages WHERE topic = 'r' $$), 'secret', 'SELECT on the view');
SELECT is(t.as('herald_test_reader', $$ SELECT FROM herald.message $$), '42501', 'does not open the log');

GRANT SELECT ON herald.topics TO herald_test_reader;
SELECT is(t.does('herald_test_reader', $$ SELECT bytes FROM herald.topics WHERE name = 'r' $$), '6', 'SELECT on the counters');

-- Payloads: an upload is its owner's; what is complete is for who may read, once it is in a message.
CREATE ROLE herald_test_uploader;
CREATE ROLE herald_test_member IN ROLE herald_test_uploader;
CREATE ROLE herald_test_other;
GRANT USAGE ON SCHEMA herald TO herald_test_uploader, herald_test_other;
GRANT EXECUTE ON FUNCTION herald.payload_open, herald.payload_write, herald.payload_close, herald.payload_abort, herald.payload_read,
    herald.payload_stored, herald.send_payload TO herald_test_uploader, herald_test_other;
CREATE FUNCTION t.codes(role text, payload text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(coalesce(t.as(role, format(call, payload)), 'done'), ' ') FROM unnest(ARRAY[
        'SELECT herald.payload_read(%L)', 'SELECT herald.payload_stored(%L, 0, 1)', 'SELECT herald.payload_write(%L, ''x'')',
        'SELECT herald.payload_close(%L)', 'SELECT herald.payload_abort(%L)', 'SELECT herald.send_payload(%L, ''up'')']) call $$;
SELECT t.does('herald_test_uploader', 'SELECT herald.payload_open()') AS up \gset
SELECT is(t.codes('herald_test_uploader', :'up'), 'done done done done done 55000', 'pending: its owner does everything but send it');
SELECT is(t.codes('herald_test_member', :'up'), 'done done done done done 55000', 'so does a member of that role');
SELECT is(t.codes('herald_test_other', :'up'), 'P0002 P0002 42501 42501 42501 P0002', 'another role nothing');
SELECT t.does('herald_test_member', format('SELECT herald.payload_close(%L)', :'up')) \g /dev/null
SELECT is(t.codes('herald_test_uploader', :'up'), 'done done 55000 55000 55000 done', 'complete: its owner reads and sends it');
SELECT is(t.codes('herald_test_other', :'up'), 'P0002 P0002 42501 42501 42501 P0002', 'nobody else');
SELECT t.does('herald_test_uploader', format('SELECT herald.send_payload(%L, %L)', :'up', 'up')) \g /dev/null
SELECT is(t.codes('herald_test_other', :'up'), 'done done 42501 42501 42501 done', 'in a message: everybody who may read, and sends it on');
SELECT is(t.as('herald_test_nobody', format('SELECT herald.payload_read(%L)', :'up')), '42501', 'but nobody without a grant');
SELECT is(t.as('herald_test_sender', 'SET ' || setting), '42501', setting || ' is for superusers')
FROM unnest(ARRAY['herald.audit = off', 'herald.max_payload = 1', 'herald.upload_timeout = 1']) setting;
SELECT is(t.does('herald_test_sender', $$ SELECT herald.send_message('s', NULL, repeat('x', 2000000), topic => 'up') $$) IS NOT NULL, true,
    'a large content needs no other right');
SELECT is((SELECT p.owner FROM herald.payloads p WHERE p.bytes = 2000000), 'herald_test_sender', 'and is the sender''s');

-- INSERT on the log, with its defaults: inserts, and is announced without further rights.
CREATE ROLE herald_test_inserter;
GRANT USAGE ON SCHEMA herald TO herald_test_inserter;
GRANT INSERT ON herald.message TO herald_test_inserter;
GRANT EXECUTE ON FUNCTION herald.next_position, herald.uuid_v7 TO herald_test_inserter;
SELECT is(t.as('herald_test_inserter', $$ INSERT INTO herald.message (topic, content) VALUES ('ins', 'x') $$), NULL, 'INSERT on the log');
SELECT is(t.as('herald_test_inserter', $$ INSERT INTO herald.message (pos, topic, content) VALUES (900000000, 'ins', 'x') $$), '428C9',
    'with the same rules');

SELECT is(t.as('herald_test_sender', 'SET herald.notify = off'), '42501', 'silence is for superusers');

-- watch: of one's own tables; and whoever writes to them needs no right in herald.
GRANT EXECUTE ON FUNCTION herald.watch, herald.unwatch, herald.require_topic, herald.publish_change TO herald_test_owner;
SELECT is(t.as('herald_test_owner', $$ SELECT herald.watch('public.watched', 'a') $$), '42501', 'watch of another''s table');
SELECT herald.watch('public.watched', 'watched') \g /dev/null
SELECT is(t.as('herald_test_owner', $$ SELECT herald.unwatch('public.watched') $$), '42501', 'unwatch of another''s table');
SELECT is(t.does('herald_test_owner', $$ SELECT herald.watch('public.theirs', 'theirs') $$), '', 'watch of one''s own');
GRANT INSERT ON public.theirs TO herald_test_nobody;
SELECT is(t.as('herald_test_nobody', 'INSERT INTO public.theirs VALUES (0)'), NULL, 'a writer without rights in herald');
SET LOCAL ROLE herald_test_nobody;
INSERT INTO public.theirs VALUES (1);
RESET ROLE;
SELECT is((SELECT content::jsonb #>> '{new,id}' FROM herald.messages WHERE topic = 'theirs'), '1', 'is told of');

-- Archives: in files for who may write and read these, in a table for who may insert there.
CREATE ROLE herald_test_archivist;
GRANT USAGE ON SCHEMA herald TO herald_test_archivist;
GRANT EXECUTE ON FUNCTION herald.archive_to(text, text), herald.archive_to(text, regclass), herald.read_archive TO herald_test_archivist;
CREATE TABLE public.archived (LIKE herald.messages);
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.archive_to('a', '/tmp') $$), '42501', 'files are for pg_write_server_files');
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.read_archive('/tmp') $$), '42501', 'and for pg_read_server_files');
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.archive_to('a', 'public.archived'::regclass) $$), '42501', 'a table for INSERT');
GRANT pg_write_server_files, pg_read_server_files TO herald_test_archivist;
GRANT INSERT ON public.archived TO herald_test_archivist;
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.archive_to('a', '/tmp') $$), NULL, 'who may write files archives in them');
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.read_archive('/tmp') $$), NULL, 'who may read files reads them');
SELECT is(t.as('herald_test_archivist', $$ SELECT herald.archive_to('a', 'public.archived'::regclass) $$), NULL, 'who may insert archives in a table');

-- Mallory may send, and brings operators, functions, casts and tables of her own, found first.
CREATE SCHEMA evil AUTHORIZATION herald_test_mallory;
CREATE TABLE evil.caught (who name, what text);
GRANT ALL ON evil.caught TO PUBLIC;
GRANT EXECUTE ON FUNCTION herald.send_message, herald.publish, herald.send_batch, herald.publish_batch, herald.reply, herald.read,
    herald.tail, herald.conversation, herald.message_by_id, herald.create_topic, herald.drop_topic, herald.feed, herald.gap,
    herald.tail_start, herald.horizon, herald.maintain, herald.watch, herald.unwatch, herald.matches, herald.channel,
    herald.require_topic, herald.publish_change TO herald_test_mallory;
SET LOCAL ROLE herald_test_mallory;
DO $do$
DECLARE
    pair record;
    body text := 'BEGIN INSERT INTO evil.caught VALUES (current_user, %L); RETURN %s; END';
BEGIN
    FOR pair IN SELECT * FROM (VALUES ('text', 'text'), ('int8', 'int8'), ('int8', 'int4'), ('uuid', 'uuid'), ('timestamptz', 'timestamptz'),
            ('int4', 'int4'), ('oid', 'oid'), ('name', 'name'), ('bool', 'bool'), ('name', 'text'), ('regclass', 'regclass')) p(l, r) LOOP
        EXECUTE format('CREATE FUNCTION evil.compare(%s, %s) RETURNS boolean LANGUAGE plpgsql AS %L', pair.l, pair.r,
            format(body, 'operator ' || pair.l, 'true'));
        EXECUTE format('CREATE OPERATOR evil.= (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare);'
            'CREATE OPERATOR evil.> (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare);'
            'CREATE OPERATOR evil.>= (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare);'
            'CREATE OPERATOR evil.< (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare);'
            'CREATE OPERATOR evil.<= (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare);'
            'CREATE OPERATOR evil.<> (LEFTARG = %1$s, RIGHTARG = %2$s, FUNCTION = evil.compare)', pair.l, pair.r);
    END LOOP;
    EXECUTE format('CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS %L', format(body, 'now', 'pg_catalog.now()'));
    EXECUTE format('CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS %L', format(body, 'clock_timestamp', 'pg_catalog.now()'));
    EXECUTE format('CREATE FUNCTION evil.nextval(regclass) RETURNS int8 LANGUAGE plpgsql AS %L', format(body, 'nextval', '1'));
    EXECUTE format('CREATE FUNCTION evil.octet_length(text) RETURNS int4 LANGUAGE plpgsql AS %L', format(body, 'octet_length', '1'));
    EXECUTE format('CREATE FUNCTION evil.length(text) RETURNS int4 LANGUAGE plpgsql AS %L', format(body, 'length', '1'));
    EXECUTE format('CREATE FUNCTION evil.format(text, text) RETURNS text LANGUAGE plpgsql AS %L', format(body, 'format', '''x'''));
END $do$;
CREATE TABLE evil.message (LIKE pg_catalog.pg_class);
CREATE TABLE evil.pg_class (oid oid);
CREATE TEMP TABLE pg_class (oid oid);
CREATE TEMP TABLE message (pos int8);
CREATE TABLE evil.own (id int);
CREATE TYPE evil.kind AS ENUM ('a', 'b');
CREATE FUNCTION evil.as_json(evil.kind) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO evil.caught VALUES (current_user, 'cast'); RETURN '"cast"'; END $$;
CREATE CAST (evil.kind AS json) WITH FUNCTION evil.as_json(evil.kind);
CREATE TABLE evil.typed (id int, kind evil.kind);
SELECT set_config('search_path', 'evil, pg_temp, pg_catalog, public', true) \g /dev/null
SELECT 1::bigint = 1::bigint AND 'a'::text = 'b'::text \g /dev/null
SELECT herald.send_message('m', NULL, 'evil', topic => 'evil', idempotency_key => 'k', conversation => 'evil', ttl => '1 hour') AS evil_id \gset
SELECT herald.send_message('m', NULL, 'evil', topic => 'evil', idempotency_key => 'k') \g /dev/null
SELECT herald.publish('evil', '1') \g /dev/null
SELECT herald.send_batch('[{"sender": "m", "content": "c", "topic": "evil"}]') \g /dev/null
SELECT herald.publish_batch('evil', '{1,2}') \g /dev/null
SELECT herald.reply(:'evil_id', 'c', sender => 'm') \g /dev/null
SELECT herald.read('evil'), herald.tail('ev*'), herald.conversation('evil'), herald.message_by_id(:'evil_id') \g /dev/null
SELECT herald.feed('e*', 0, 10, 1000, 1000), herald.gap('e*', 0), herald.tail_start('evil', 2), herald.horizon(), herald.channel('evil') \g /dev/null
SELECT herald.create_topic('evil made') \g /dev/null
SELECT herald.send_message('m', NULL, 'x', topic => 'evil bulk') FROM generate_series(1, 3000) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT herald.drop_topic('evil made') \g /dev/null
SELECT herald.watch('evil.own', 'evil') \g /dev/null
INSERT INTO evil.own VALUES (1);
UPDATE evil.own SET id = 2;
SELECT herald.unwatch('evil.own') \g /dev/null
SELECT herald.watch('evil.typed', 'evil typed') \g /dev/null
INSERT INTO evil.typed VALUES (1, 'a');
RESET ROLE;
SELECT set_config('search_path', '"$user", public', true) \g /dev/null
SELECT is((SELECT string_agg(DISTINCT what, ',' ORDER BY what) FROM evil.caught WHERE who = 'herald_test_mallory'
           AND what IN ('cast', 'operator int8', 'operator text')), 'cast,operator int8,operator text', 'her traps work: they catch herself');
SELECT is((SELECT pg_catalog.string_agg(DISTINCT what || ' as ' || who, ', ') FROM evil.caught WHERE who <> 'herald_test_mallory'), NULL,
    'none of her code ran as somebody else');
SELECT is((SELECT count(*) FROM herald.messages WHERE topic = 'evil'), 7::bigint, 'and her messages went where they should');
SELECT is((SELECT count(*) FROM herald.messages WHERE topic = 'evil bulk'), 3000::bigint, 'all of them');

SELECT * FROM finish();
ROLLBACK;
