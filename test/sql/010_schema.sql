-- What CREATE EXTENSION leaves: names, types, comments, and no rights for anybody.
\ir helpers.psql
SELECT plan(99);

SELECT has_extension('pg_herald');
SELECT has_schema('herald');

-- Functions: exact arguments and result.
CREATE TEMP TABLE expected (name text, arguments text, result text);
INSERT INTO expected VALUES
('send_message', 'text,text,text,text,jsonb,text,text,text,uuid,integer,text,timestamp with time zone,interval,text', 'uuid'),
('publish', 'text,jsonb,text,jsonb,text,uuid,integer,text,timestamp with time zone,interval,text,text,text', 'uuid'),
('send_batch', 'jsonb', 'SETOF uuid'),
('publish_batch', 'text,jsonb[],text,text,text', 'SETOF uuid'),
('reply', 'uuid,text,text,text,jsonb,integer,text,timestamp with time zone,interval,text', 'uuid'),
('watch', 'regclass,text,text,text[]', 'void'),
('unwatch', 'regclass', 'boolean'),
('read', 'text,bigint,integer', 'SETOF herald.messages'),
('tail', 'text,integer', 'SETOF herald.messages'),
('conversation', 'text', 'SETOF herald.messages'),
('message_by_id', 'uuid', 'SETOF herald.messages'),
('wait_for', 'text,bigint,interval', NULL),
('cancel', 'uuid', 'boolean'),
('envelope', 'herald.messages', 'json'),
('envelope', 'herald.messages,integer', 'json'),
('channel', 'text', 'text'),
('horizon', '', 'bigint'),
('matches', 'text,text', 'boolean'),
('create_topic', 'text,text,boolean', 'void'),
('alter_topic', 'text,text,boolean', 'void'),
('drop_topic', 'text', 'void'),
('archive_to', 'text,text', 'void'),
('archive_to', 'text,regclass', 'void'),
('stop_archive', 'text', 'boolean'),
('read_archive', 'text,text,bigint,bigint', 'SETOF herald.messages'),
('set_retention', 'text,interval,bigint,bigint', 'void'),
('reset_retention', 'text', 'boolean'),
('trim', 'text,bigint', 'bigint'),
('trim', 'text,timestamp with time zone', 'bigint'),
('maintain', '', 'void'),
('put_payload', 'bytea,text,text,bytea', 'uuid'),
('payload_open', 'text,text,bigint', 'uuid'),
('payload_write', 'uuid,bytea,bigint', 'bigint'),
('payload_close', 'uuid,bytea', 'bytea'),
('payload_abort', 'uuid', 'void'),
('payload_read', 'uuid,bigint,bigint', 'bytea'),
('payload_stored', 'uuid,bigint,integer', 'TABLE(start bigint, bytes integer, data bytea)'),
('send_payload', 'uuid,text,text,text,text,jsonb,text,text,uuid,integer,text,timestamp with time zone,interval,text', 'uuid'),
('feed', 'text,bigint,integer,integer,integer', 'TABLE(pos bigint, topic text, expires_us bigint, envelope text, lost text)'),
('gap', 'text,bigint', 'record'),
('tail_start', 'text,integer', 'bigint');
SELECT has_function('herald', name, CASE arguments WHEN '' THEN '{}'::text[] ELSE string_to_array(arguments, ',') END)
FROM expected;
SELECT is(pg_get_function_result(format('herald.%I(%s)', name, arguments)::regprocedure), result,
          format('%s returns %s', name, result))
FROM expected WHERE result IS NOT NULL AND name <> 'gap';

SELECT is(
    (SELECT string_agg(format('%s %s', n, format_type(t, NULL)), ', ' ORDER BY i)
     FROM pg_proc, unnest(proargnames, proargmodes, proallargtypes) WITH ORDINALITY AS a(n, m, t, i)
     WHERE oid = 'herald.gap(text,bigint)'::regprocedure AND m IN ('o', 't')),
    'to_pos bigint, why text', 'gap gives to_pos and why');

-- The names of arguments are part of the interface: calls use them.
SELECT is(pg_get_function_arguments('herald.send_message(text,text,text,text,jsonb,text,text,text,uuid,integer,text,timestamptz,interval,text)'::regprocedure),
    'sender text, recipient text, content text, message_type text DEFAULT ''notification''::text, '
    'metadata jsonb DEFAULT NULL::jsonb, conversation text DEFAULT NULL::text, topic text DEFAULT NULL::text, '
    'workspace text DEFAULT NULL::text, reply_to uuid DEFAULT NULL::uuid, priority integer DEFAULT 0, '
    'ordering_key text DEFAULT NULL::text, deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, '
    'ttl interval DEFAULT NULL::interval, idempotency_key text DEFAULT NULL::text',
    'send_message: names and defaults');
SELECT is(pg_get_function_arguments('herald.watch(regclass,text,text,text[])'::regprocedure),
    'watched regclass, topic text, events text DEFAULT ''insert,update,delete''::text, columns text[] DEFAULT NULL::text[]',
    'watch: names and defaults');

SELECT columns_are('herald', 'messages', ARRAY['pos', 'id', 'topic', 'at', 'sender', 'recipient', 'message_type',
    'content', 'metadata', 'conversation', 'reply_to', 'priority', 'ordering_key', 'expires_at', 'workspace',
    'idempotency_key', 'is_json', 'payload']);
SELECT columns_are('herald', 'topics', ARRAY['name', 'description', 'created_at', 'messages', 'bytes', 'last_pos',
    'last_at', 'first_pos', 'first_at']);
SELECT is(
    (SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = 'herald.messages'::regclass AND attnum > 0),
    'bigint, uuid, text, timestamp with time zone, text, text, text, text, jsonb, text, uuid, smallint, text, '
    'timestamp with time zone, text, text, boolean, uuid', 'messages: types of the columns, in order');

-- Every object is explained, and nothing is open to PUBLIC.
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = 'herald'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL $$,
    'every function has a comment');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
    WHERE relnamespace = 'herald'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S') AND NOT relispartition
      AND obj_description(oid, 'pg_class') IS NULL $$,
    'every table, view and sequence has a comment');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = 'herald'::regnamespace AND has_function_privilege('public', oid, 'EXECUTE') $$,
    'no function is open to PUBLIC');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
    WHERE relnamespace = 'herald'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
      AND has_table_privilege('public', oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER') $$,
    'no table or view is open to PUBLIC');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
    WHERE relnamespace = 'herald'::regnamespace
      AND CASE relkind WHEN 'S' THEN has_sequence_privilege('public', oid, 'USAGE,SELECT,UPDATE') END $$,
    'no sequence is open to PUBLIC');
SELECT ok(NOT has_schema_privilege('public', 'herald', 'USAGE,CREATE'), 'the schema is not open to PUBLIC');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace = 'herald'::regnamespace AND prosecdef
      AND NOT coalesce(proconfig::text ~ 'search_path', false) $$,
    'functions that run as their owner pin search_path');

-- The extension goes and comes back, with messages in the log.
SELECT herald.send_message('pm', 'dev', 'kept?') \g /dev/null
SELECT lives_ok('DROP EXTENSION pg_herald CASCADE', 'DROP EXTENSION works with messages stored');
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'herald') $$,
    'DROP EXTENSION leaves no table behind');
SELECT lives_ok('CREATE EXTENSION pg_herald', 'CREATE EXTENSION works again in the same session');
SELECT isnt(herald.send_message('pm', 'dev', 'again'), NULL, 'and the new one stores messages');

SELECT * FROM finish();
