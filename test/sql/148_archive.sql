-- Archives: what leaves the log is in files or a table before it does.
\ir helpers.psql
SET client_min_messages = error;
SELECT plan(146);
CREATE PROCEDURE t.maintain(now timestamptz DEFAULT clock_timestamp()) LANGUAGE plpgsql AS $$ BEGIN PERFORM herald.maintain_at(now); END $$;
CREATE PROCEDURE t.shell(command text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('COPY (SELECT WHERE false) TO PROGRAM %L', command); END $$;
CREATE TABLE t.lines (line text);
-- The lines of an archive as zstd's own tool shows them, or what another program makes of it.
CREATE FUNCTION t.zstdcat(pattern text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE t.lines;
    EXECUTE format('COPY t.lines FROM PROGRAM %L WITH (FORMAT csv, DELIMITER E''\x01'', QUOTE E''\x02'')', 'zstd -dcq ' || pattern);
    RETURN QUERY SELECT line FROM t.lines;
END $$;
CREATE FUNCTION t.archived(directory text, topics text DEFAULT '*', after bigint DEFAULT 0, max bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(r.content, ',' ORDER BY r.n), '')
    FROM (SELECT m.content, row_number() OVER () AS n FROM herald.read_archive(directory, topics, after, max) m) r $$;
CREATE FUNCTION t.archive(of text) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s files, %s messages, %s behind', files, messages, behind) FROM herald.archives WHERE topics = of $$;

-- The keeper would do all this by itself.
SELECT herald.horizon() \g /dev/null
ALTER SYSTEM SET herald.maintain = off;
SELECT pg_reload_conf() \g /dev/null
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'herald keeper' \g /dev/null
SELECT regexp_replace(current_setting('data_directory'), '/[^/]*$', '/archive-') || oid AS base FROM pg_database WHERE datname = current_database() \gset
CALL t.shell('mkdir -p ' || :'base' || '/a ' || :'base' || '/b ' || :'base' || '/c');

-- What is refused.
SELECT t.fails($$ SELECT herald.archive_to(NULL, '/tmp') $$, '22004', 'topics', 'topics NULL');
SELECT t.fails($$ SELECT herald.archive_to('a', NULL::text) $$, '22004', 'directory', 'directory NULL');
SELECT t.fails($$ SELECT herald.archive_to('a', NULL::regclass) $$, '22004', 'target', 'target NULL');
SELECT t.fails($$ SELECT herald.archive_to('a[b', '/tmp') $$, '22023', 'a\[b', 'not a pattern');
SELECT t.fails($$ SELECT herald.archive_to('a', 'archive') $$, '22023', '"archive" is not an absolute path', 'a relative path');
SELECT t.fails($$ SELECT herald.archive_to('a', '/nowhere/there') $$, '58P01', '/nowhere/there', 'a directory that is not there');
SELECT t.fails($$ SELECT herald.archive_to('a', '/etc/passwd') $$, '22023', '/etc/passwd" is no directory', 'a file');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'a', current_setting('data_directory')), '22023', 'data directory', 'the data directory');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'a', :'base' || '/a/../../data/base'), '22023', 'data directory', 'the data directory by a detour');
CALL t.shell('ln -s ' || current_setting('data_directory') || '/base ' || :'base' || '/link');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'a', :'base' || '/link'), '22023', 'data directory', 'or by a link');
SELECT t.fails($$ SELECT herald.archive_to('a', 'herald.message'::regclass) $$, '42809', 'herald.message', 'the log itself');
SELECT t.fails($$ SELECT herald.archive_to('a', 'herald.messages'::regclass) $$, '42809', 'herald.messages', 'a view');
SELECT t.fails($$ SELECT herald.archive_to('a', 4294967295::oid::regclass) $$, '42P01', '4294967295', 'a table that is not there');
CREATE TABLE t.short (LIKE herald.messages);
ALTER TABLE t.short DROP COLUMN workspace;
SELECT t.fails($$ SELECT herald.archive_to('a', 't.short'::regclass) $$, '42703', 'workspace', 'a table without a column');
ALTER TABLE t.short ADD COLUMN workspace int;
SELECT t.fails($$ SELECT herald.archive_to('a', 't.short'::regclass) $$, '42804', 'workspace', 'or with one of another type');
CREATE TEMP TABLE fleeting (LIKE herald.messages);
SELECT t.fails($$ SELECT herald.archive_to('a', 'fleeting'::regclass) $$, '42809', 'temporary', 'a temporary table');
SELECT is((SELECT count(*) FROM herald.archives), 0::bigint, 'no archive so far');
SELECT is(herald.stop_archive('a'), false, 'none to be stopped');
SELECT t.fails($$ SELECT herald.stop_archive(NULL) $$, '22004', 'topics', 'NULL');

-- A directory: trim writes before it lets go.
CALL t.send('a:1', 1, 3);
CALL t.send('other', 4, 4);
CALL t.send('a:2', 5, 6);
CREATE TABLE t.before AS SELECT m.*, herald.envelope(m)::text AS envelope FROM herald.messages m;
SELECT is(herald.archive_to('a:*', :'base' || '/a/')::text, '', 'archive_to');
SELECT is((SELECT (topics, destination, archived_to, behind, files, messages, bytes, last_at, last_error)::text FROM herald.archives),
    format('(a:*,%s/a,0,0,0,0,0,,)', :'base'), 'the view');
SELECT is(herald.archive_to('a:*', :'base' || '/a')::text, '', 'again changes nothing');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'a:*', :'base' || '/b'), '42710', 'a:\*" are archived to', 'another place for the same topics');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'b', :'base' || '/a'), '42710', 'has the archive of "a:\*"', 'other topics to the same place');
SELECT is(t.archived(:'base' || '/a'), '', 'nothing is written before its time');
SELECT is(herald.trim('a:1', (SELECT pos + 1 FROM herald.messages WHERE content = 'm2')), 2::bigint, 'trim');
SELECT is(t.contents('a:*'), 'm3,m5,m6', 'has removed two');
SELECT is(t.archive('a:*'), '1 files, 5 messages, 0 behind', 'and archived all that was there');
SELECT is(t.archived(:'base' || '/a'), 'm1,m2,m3,m5,m6', 'which is read back, in order');
SELECT is(t.archived(:'base' || '/a', 'a:2'), 'm5,m6', 'of a topic');
SELECT is(t.archived(:'base' || '/a', '*', (SELECT pos FROM t.before WHERE content = 'm2'), 2), 'm3,m5', 'above a position, at most two');
SELECT bag_eq(format('SELECT m.*, herald.envelope(m)::text FROM herald.read_archive(%L) m', :'base' || '/a'),
    $$ SELECT * FROM t.before WHERE topic LIKE 'a:%' $$, 'the same rows, with the same envelopes');
SELECT results_eq(format('SELECT * FROM t.zstdcat(%L)', :'base' || '/a/*.jsonl.zst'),
    $$ SELECT envelope FROM t.before WHERE topic LIKE 'a:%' ORDER BY pos $$, 'a line is the envelope');
CALL t.shell(format('test "$(stat -c %%a %s/a/*)" = 600', :'base'));
SELECT pass('a file is its owner''s alone');
SELECT is((SELECT array_agg(f) FROM pg_ls_dir(:'base' || '/a') f),
    ARRAY[(SELECT format('%s-%s.jsonl.zst', lpad(min(pos)::text, 16, '0'), lpad(max(pos)::text, 16, '0')) FROM t.before WHERE topic LIKE 'a:%')],
    'its name says the positions');
SELECT is(herald.trim('a:*', 9007199254740991), 3::bigint, 'what is archived goes at once');
SELECT is(t.archive('a:*'), '1 files, 5 messages, 0 behind', 'and is not written again');
SELECT is(herald.trim('other', 9007199254740991), 1::bigint, 'what does not match');
SELECT is(t.archive('a:*'), '1 files, 5 messages, 0 behind', 'goes without');

-- Everything that a message can have.
SELECT herald.send_message('pm', '42', E'tab\t "q" \\ € \n𝄞', 'request', '{"deep": [1.10, {"a": null}]}', 'c1', 'a:all', 'w "1"', gen_random_uuid(), 9, 'k',
    NULL, '90 days', 'once') \g /dev/null
SELECT herald.publish('a:all', 'null') \g /dev/null
SELECT herald.publish('a:all', '"text"') \g /dev/null
SELECT herald.publish('a:all', '{"n": 12345678901234567890.50, "s": "ü\u0001\""}') \g /dev/null
INSERT INTO herald.message (topic, content, is_json) VALUES ('a:all', E'{\n  "a": [1,\r\n 2]\n}', true), ('a:all', E'\n"x"\n', true), ('a:all', '"\u0000"', true);
INSERT INTO herald.message (topic, content, expires_at, at) VALUES ('a:all', '', 'infinity', '20000-02-29 23:59:59.999999Z'), ('a:all', '{}', NULL, '0099-12-31 BC');
INSERT INTO herald.message (topic, content, metadata) VALUES ('a:all', repeat('ä"', 300000), '{}');
SELECT herald.send_message('s', NULL, 'soon gone', topic => 'a:all', ttl => '1 microsecond') \g /dev/null
DROP TABLE t.before;
CREATE TABLE t.before AS SELECT m.*, herald.envelope(m)::text AS envelope FROM herald.messages m WHERE topic = 'a:all';
SELECT is((SELECT count(*) FROM t.before), 10::bigint, 'ten messages of all kinds');
SELECT ok(herald.trim('a:all', 9007199254740991) >= 10, 'leave');
SELECT bag_eq(format('SELECT m.*, herald.envelope(m)::text FROM herald.read_archive(%L, %L) m', :'base' || '/a', 'a:all'),
    'SELECT * FROM t.before', 'and are back as they were; what had expired is not there');
SELECT is((SELECT count(*) FROM t.zstdcat(:'base' || '/a/*.jsonl.zst') l WHERE l LIKE '%"topic":"a:all"%'), 10::bigint, 'one line each');
SELECT is((SELECT l::json ->> 'workspace' || ' ' || (l::json ->> 'idempotency_key') FROM t.zstdcat(:'base' || '/a/*.jsonl.zst') l WHERE l LIKE '%"key":"k"%'),
    'w "1" once', 'with what the envelope lacks');

-- Rules: what is not archived stays.
SELECT herald.set_retention('r', max_messages => 1) \g /dev/null
SELECT herald.archive_to('r', :'base' || '/b') \g /dev/null
CALL t.shell('chmod 0 ' || :'base' || '/b');
CALL t.shell('mv ' || :'base' || '/b ' || :'base' || '/gone');
CALL t.send('r', 1, 3);
CALL t.send('q', 1, 3);
SELECT herald.set_retention('q', max_messages => 1) \g /dev/null
SELECT herald.start_segment() AS first \gset
CALL t.send('q', 4, 4);
CALL t.maintain();
SELECT is(t.contents('r'), 'm1,m2,m3', 'without its directory an archive holds its messages back');
SELECT is(t.contents('q'), 'm4', 'and no others');
SELECT matches((SELECT last_error FROM herald.archives WHERE topics = 'r'), 'could not access directory.*/b.*No such file', 'the view says why');
SELECT is(t.archive('r'), '0 files, 0 messages, 2 behind', 'and how much');
SELECT is((SELECT held_by FROM herald.segments WHERE number = 0), 'archive', 'it holds the segment');
SELECT t.fails($$ SELECT herald.trim('r', 9007199254740991) $$, '58P01', '/b', 'by hand it cannot be removed either');
CALL t.shell('chmod 700 ' || :'base' || '/gone && mv ' || :'base' || '/gone ' || :'base' || '/b');
CALL t.maintain();
SELECT is(t.contents('r'), 'm3', 'with the directory all goes on');
SELECT is((SELECT last_error FROM herald.archives WHERE topics = 'r'), NULL, 'and the trouble is forgotten');
SELECT is(t.archived(:'base' || '/b'), 'm1,m2,m3', 'archived');
SELECT is((SELECT held_by FROM herald.segments WHERE number = 0), 'messages', 'held by what is kept');
SELECT is(herald.stop_archive('r'), true, 'stop_archive');
CALL t.send('r', 4, 5);
CALL t.maintain();
SELECT is(t.contents('r'), 'm5', 'then messages go without');
SELECT is(t.archived(:'base' || '/b'), 'm1,m2,m3', 'and what was written stays');
SELECT is(herald.archive_to('r', :'base' || '/b')::text, '', 'an archive is continued');
CALL t.send('r', 6, 6);
CALL t.maintain();
SELECT is(t.archived(:'base' || '/b'), 'm1,m2,m3,m5,m6', 'each message once');
SELECT is(herald.stop_archive('r'), true, 'stopped');
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'q', :'base' || '/b'), '55000', 'of other topics', 'not by other topics');

-- A transaction that has sent may be taken back: it archives nothing.
BEGIN;
SELECT herald.send_message('s', NULL, 'taken back', topic => 'a:1') \g /dev/null
SELECT t.fails($$ SELECT herald.trim('a:*', 9007199254740991) $$, '25001', 'sent', 'trim in a transaction that has sent');
SELECT herald.set_retention('a:*', max_messages => 1) \g /dev/null
CALL t.maintain();
ROLLBACK;
SELECT is(t.archived(:'base' || '/a', 'a:1'), 'm1,m2,m3', 'nothing of it is in the archive');

-- A leftover of an attempt that was taken back is replaced, or continued.
CALL t.send('a:3', 1, 2);
BEGIN;
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
ROLLBACK;
SELECT is(t.contents('a:3'), 'm1,m2', 'a trim is taken back');
SELECT is(t.archived(:'base' || '/a', 'a:3'), 'm1,m2', 'its file is there');
CALL t.send('a:3', 3, 3);
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
SELECT is(t.archived(:'base' || '/a', 'a:3'), 'm1,m2,m3', 'each message is there once');
SELECT is((SELECT count(*) FROM t.zstdcat(:'base' || '/a/*.jsonl.zst') l WHERE l LIKE '%"topic":"a:3"%'), 3::bigint, 'in the files, too');
CALL t.send('a:3', 4, 4);
SELECT herald.send_message('s', NULL, 'short', topic => 'a:3', ttl => '1 hour') \g /dev/null
BEGIN;
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
ROLLBACK;
CALL t.send('a:3', 5, 5);
UPDATE herald.message SET expires_at = clock_timestamp() WHERE content = 'short';
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
SELECT is(t.archived(:'base' || '/a', 'a:3'), 'm1,m2,m3,m4,short,m5', 'a leftover with what has expired since stays');

SELECT herald.send_message('s', NULL, 'not dropped', topic => 'a:drop') \g /dev/null
BEGIN;
SELECT herald.drop_topic('a:drop') \g /dev/null
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
ROLLBACK;
SELECT herald.trim('a:*', 9007199254740991) \g /dev/null
SELECT is(t.archived(:'base' || '/a', 'a:drop'), 'not dropped', 'what a drop would have removed that was taken back is there');
SELECT herald.send_message('s', NULL, 'nor this', topic => 'a:drop') \g /dev/null
SELECT herald.send_message('s', NULL, 'to trim', topic => 'a:3') \g /dev/null
BEGIN;
SELECT herald.drop_topic('a:drop') \g /dev/null
SELECT herald.trim('a:3', 9007199254740991) \g /dev/null
ROLLBACK;
SELECT herald.stop_archive('a:*') \g /dev/null
SELECT t.fails(format('SELECT herald.archive_to(%L, %L)', 'a:*', :'base' || '/a'), '55000', 'does not have the messages', 'nor does an archive go on without it');

-- Another history.
SELECT herald.archive_to('h', :'base' || '/c') \g /dev/null
CALL t.send('h', 1, 2);
SELECT pos AS h FROM herald.messages WHERE topic = 'h' AND content = 'm2' \gset
SELECT herald.trim('h', :h) \g /dev/null
UPDATE herald.archive SET archived_to = 0 WHERE topics = 'h';
UPDATE herald.message SET id = gen_random_uuid() WHERE topic = 'h' AND pos = :h;
SELECT t.fails($$ SELECT herald.advance_archive('h') $$, '55000', 'other messages at the positions', 'files of another history are left alone');
SELECT is(t.archived(:'base' || '/c'), 'm1,m2', 'they are as they were');
SELECT is((SELECT count(*) FROM pg_ls_dir(:'base' || '/c') f), 1::bigint, 'and nothing else is there');
SELECT is(herald.stop_archive('h'), true, 'stopped');

-- Damaged files.
SELECT f AS file FROM pg_ls_dir(:'base' || '/c') f \gset
CALL t.shell(format('cp %1$s/c/%2$s %1$s/whole', :'base', :'file'));
CREATE FUNCTION t.damaged(base text, file text, command text, message text, description text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    CALL t.shell(format('cd %s/c && %s', base, replace(command, 'FILE', file)));
    RETURN t.fails(format('SELECT * FROM herald.read_archive(%L)', base || '/c'), 'XX001', file || '" is damaged at line \d+: ' || message, description);
END $$;
SELECT t.damaged(:'base', :'file', 'head -c -3 ../whole > FILE', 'the file is cut off', 'cut off at its end');
SELECT t.damaged(:'base', :'file', 'head -c 1300 ../whole > FILE', 'the file is cut off', 'in the middle');
SELECT t.damaged(:'base', :'file', 'head -c 1280 ../whole > FILE', 'it has 0 messages, and should have 2', 'between the frames');
SELECT t.damaged(:'base', :'file', 'head -c 700 ../whole > FILE', 'it is cut off', 'in its header');
SELECT t.damaged(:'base', :'file', ': > FILE', 'the file is empty', 'empty');
SELECT t.damaged(:'base', :'file', 'cp ../whole FILE && printf x | dd of=FILE bs=1 seek=1330 conv=notrunc status=none', '', 'a byte is another');
SELECT t.damaged(:'base', :'file', 'echo nonsense | zstd -cq > FILE', 'it is not a JSON object', 'not an archive');
SELECT t.damaged(:'base', :'file', 'echo "{\"pos\":1}" | zstd -cq > FILE', 'the value of "content" is none', 'half a message');
SELECT t.damaged(:'base', :'file', 'printf "{\"pos\":-1}\n" | zstd -cq > FILE', 'the value of "pos"', 'a position that is none');
SELECT t.damaged(:'base', :'file', 'printf "{\"new\":1}\n" | zstd -cq > FILE', '"new" is not known', 'a member that is not known');
SELECT t.damaged(:'base', :'file', 'printf "{\"topic\":\"\377\"}\n" | zstd -cq > FILE', 'it is not UTF-8', 'text that is none');
SELECT t.damaged(:'base', :'file', 'zstd -dcq ../whole | head -c -1 | zstd -cq > FILE', 'the line has no end', 'a line without its end');
SELECT t.damaged(:'base', :'file', '(zstd -dcq ../whole; zstd -dcq ../whole) | zstd -cq > FILE', 'its position is not above the one before', 'messages twice');
SELECT t.damaged(:'base', :'file', 'head -c 30000000 /dev/zero | zstd -cq --long=27 > FILE', 'Frame requires too much memory', 'more memory than a file may ask for');
CALL t.shell(format('cd %1$s/c && zstd -dcq ../whole | zstd -19cq > %2$s', :'base', :'file'));
SELECT is(t.archived(:'base' || '/c'), 'm1,m2', 'compressed anew by somebody it is read');
CALL t.shell(format('cd %s/c && touch 1-2.jsonl.zst notes.txt 0000000000000009-0000000000000001.jsonl.zst', :'base'));
SELECT is(t.archived(:'base' || '/c'), 'm1,m2', 'other files are none of it');
SELECT t.fails($$ SELECT herald.read_archive('c') $$, '22023', '"c" is not an absolute path', 'read_archive: a relative path');
SELECT t.fails($$ SELECT herald.read_archive('/nowhere') $$, '58P01', '/nowhere', 'no directory');
SELECT t.fails($$ SELECT herald.read_archive('/tmp', after => -1) $$, '22023', '-1', 'a negative position');
SELECT t.fails($$ SELECT herald.read_archive('/tmp', max => 0) $$, '22023', 'max is 0', 'no messages');
SELECT t.fails($$ SELECT herald.read_archive(NULL) $$, '22004', 'directory', 'NULL');

-- A table.
CREATE TABLE t."Odd 'name""s" (LIKE herald.messages, added timestamptz DEFAULT now(), PRIMARY KEY (pos));
SELECT is(herald.archive_to('t*', format('t.%I', 'Odd ''name"s')::regclass)::text, '', 'an archive in a table');
SELECT is((SELECT destination FROM herald.archives WHERE topics = 't*'), 't."Odd ''name""s"', 'by its name');
CALL t.send('t1', 1, 2);
SELECT herald.publish('t2', '{"a": 1}', idempotency_key => 'k') \g /dev/null
DROP TABLE t.before;
CREATE TABLE t.before AS SELECT * FROM herald.messages WHERE topic LIKE 't_';
SELECT herald.set_retention('t*', max_messages => 1) \g /dev/null
CALL t.maintain();
SELECT is((SELECT (messages, files, last_error)::text FROM herald.archives WHERE topics = 't*'), '(3,0,)', 'messages and no files');
SELECT bag_eq((SELECT format('SELECT %s FROM t.%I', string_agg(quote_ident(attname), ', ' ORDER BY attnum), 'Odd ''name"s')
    FROM pg_attribute WHERE attrelid = 'herald.messages'::regclass AND attnum > 0), 'SELECT * FROM t.before', 'the same rows');
SELECT is(t.contents('t1'), 'm2', 'and then they go');
ALTER TABLE t."Odd 'name""s" RENAME TO elsewhere;
CALL t.send('t1', 3, 4);
CALL t.maintain();
SELECT matches((SELECT last_error FROM herald.archives WHERE topics = 't*'), 'Odd ''name', 'without the table they stay');
SELECT is(t.contents('t1'), 'm3,m4', 'all that are not archived');
CREATE RULE away AS ON INSERT TO t.elsewhere DO INSTEAD NOTHING;
ALTER TABLE t.elsewhere RENAME TO "Odd 'name""s";
CALL t.maintain();
SELECT matches((SELECT last_error FROM herald.archives WHERE topics = 't*'), 'did not take message', 'a table that takes nothing');
DROP RULE away ON t."Odd 'name""s";
CALL t.maintain();
SELECT is(t.contents('t1'), 'm4', 'with the table they go');

-- A message with a payload: its row is what it was.
CALL t.shell('mkdir -p ' || :'base' || '/p');
SELECT herald.archive_to('p', :'base' || '/p') \g /dev/null
SELECT herald.send_payload(herald.put_payload('large', 'text/plain'), 'p', 'me') \g /dev/null
SELECT herald.publish('p', '{"small": true}') \g /dev/null
CREATE TABLE t.sent AS SELECT m.pos, m.payload, m.content, herald.envelope(m)::text FROM herald.read('p') m;
SELECT herald.trim('p', 9007199254740991) \g /dev/null
SELECT is(t.contents('p'), '', 'both are gone');
SELECT results_eq(format('SELECT m.pos, m.payload, m.content, herald.envelope(m)::text FROM herald.read_archive(%L) m', :'base' || '/p'),
    'SELECT * FROM t.sent ORDER BY pos', 'and come back as they were');
SELECT ok((SELECT payload IS NOT NULL AND content ~ '^{"bytes":5,' FROM t.sent ORDER BY pos LIMIT 1), 'the reference');

-- What is in payloads is archived with their first message, in a file of its own.
CREATE TABLE t.contents AS
    SELECT c.compression, decode(string_agg(encode(sha256((c.compression || n)::bytea), 'hex'), ''), 'hex') AS content, NULL::uuid AS payload
    FROM (VALUES ('zstd', 10000), ('gzip', 20000), ('none', 1), ('zstd', 0)) AS c (compression, hashes), generate_series(1, c.hashes) n GROUP BY c.compression, c.hashes
    UNION ALL SELECT 'zstd', '', NULL;
UPDATE t.contents SET payload = herald.put_payload(content, compression => compression);
SELECT count(herald.send_payload(payload, 'p')), count(herald.send_payload(payload, 'p')) FROM t.contents \g /dev/null
SELECT herald.trim('p', 9007199254740991) \g /dev/null
SELECT results_eq(format('SELECT count(*), count(DISTINCT payload) FROM herald.read_archive(%L) WHERE payload IN (SELECT payload FROM t.contents)', :'base' || '/p'),
    'SELECT 8::bigint, 4::bigint', 'messages that share payloads');
SELECT is((SELECT count(*) FROM pg_ls_dir(:'base' || '/p/payloads')), 5::bigint, 'a file each, and of the one before');
SELECT is((SELECT files FROM herald.archives WHERE topics = 'p'), 2::bigint, 'which are not counted');
SELECT ok((SELECT bytes > 960000 FROM herald.archives WHERE topics = 'p'), 'but their bytes are');
SELECT is((SELECT count(*) FROM t.contents WHERE content = herald.read_archived_payload(:'base' || '/p', payload)), 4::bigint, 'they are read back');
SELECT payload, content FROM t.contents WHERE compression = 'gzip' \gset
SELECT :'base' || '/p/payloads/' || :'payload' || '.zst' AS path \gset
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload', 262140, 10), substr(:'content'::bytea, 262141, 10), 'a part of one');
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload', 639990), substr(:'content'::bytea, 639991), 'its end');
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload', 639990, 1000), substr(:'content'::bytea, 639991), 'more than there is');
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload', 640000), ''::bytea, 'nothing');
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload', 7, 0), ''::bytea, 'nothing in the middle');
SELECT is((SELECT string_agg(line, '') FROM t.zstdcat(:'path' || ' | sha256sum | cut -c 1-64') AS z (line)), encode(sha256(:'content'), 'hex'), 'and by a tool');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L, 640001)', :'base' || '/p', :'payload'), '22023', '640001 is beyond the end', 'beyond the end');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L, -1)', :'base' || '/p', :'payload'), '22023', 'offset is -1', 'before the beginning');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L, 0, -1)', :'base' || '/p', :'payload'), '22023', 'length is -1', 'a negative length');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', gen_random_uuid()), 'P0002', 'no payload .* in the archive', 'one that is not there');
SELECT t.fails(format('SELECT herald.read_archived_payload(NULL, %L)', :'payload'), '22004', 'directory', 'no directory');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, NULL)', :'base' || '/p'), '22004', 'payload', 'no payload');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L, NULL)', :'base' || '/p', :'payload'), '22004', 'offset', 'no offset');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', 'p', :'payload'), '22023', 'absolute path', 'a relative path');
CREATE ROLE t_reader;
GRANT USAGE ON SCHEMA herald TO t_reader;
GRANT EXECUTE ON FUNCTION herald.read_archived_payload TO t_reader;
SET ROLE t_reader;
SELECT throws_like(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), '%t_reader%may not read files%', 'who may not read files');
SELECT throws_like(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/nowhere', :'payload'), '%may not read files%', 'learns nothing of directories');
RESET ROLE;
DROP OWNED BY t_reader;
DROP ROLE t_reader;
-- Damaged files.
CALL t.shell('cp ' || :'path' || ' ' || :'base' || '/whole');
CALL t.shell('head -c -1 ' || :'base' || '/whole > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L, 0, 1)', :'base' || '/p', :'payload'), 'XX001', :'payload' || '.*another length', 'one that is cut off');
CALL t.shell('sed s/sha256:./sha256:x/ ' || :'base' || '/whole > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'digest', 'of another content');
CALL t.shell('sed s/herald_payload/herald_nothing/ ' || :'base' || '/whole > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'header', 'another header');
CALL t.shell('head -c 100 ' || :'base' || '/whole > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'header', 'half a header');
CALL t.shell('cat ' || :'base' || '/whole ' || :'base' || '/whole > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'another length', 'one twice');
CALL t.shell('head -c 70000 /dev/zero | zstd -q > ' || :'base' || '/zeros; (head -c 256 ' || :'base' || '/whole; cat ' || :'base' || '/zeros ) > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'another length', 'less than was there');
CALL t.shell('head -c 100000000 /dev/zero | zstd -q > ' || :'base' || '/zeros; (head -c 256 ' || :'base' || '/whole; cat ' || :'base' || '/zeros ) > ' || :'path');
SELECT t.fails(format('SELECT herald.read_archived_payload(%L, %L)', :'base' || '/p', :'payload'), 'XX001', 'another length', 'a bomb');
-- What cannot be archived stays.
SELECT herald.put_payload(convert_to(repeat('x', 1000000), 'UTF8')) AS payload \gset
SELECT herald.send_payload(:'payload', 'p') \g /dev/null
CALL t.shell('mv ' || :'base' || '/p/payloads ' || :'base' || '/elsewhere && ln -s ' || :'base' || '/elsewhere ' || :'base' || '/p/payloads');
SELECT t.fails($$ SELECT herald.trim('p', 9007199254740991) $$, '55000', 'payloads" is no directory', 'a link is not followed');
CALL t.shell('rm ' || :'base' || '/p/payloads && mv ' || :'base' || '/elsewhere ' || :'base' || '/p/payloads');
CREATE TABLE t.chunks AS SELECT tableoid::regclass AS place, c.* FROM herald.payload_chunk c WHERE payload = :'payload';
DELETE FROM herald.payload_chunk WHERE payload = :'payload';
SELECT t.fails($$ SELECT herald.trim('p', 9007199254740991) $$, 'XX001', :'payload' || '.*missing', 'nor is one that is damaged');
SELECT is((SELECT count(*) FROM herald.read('p')), 1::bigint, 'its message stays');
SELECT is((SELECT count(*) FROM pg_ls_dir(:'base' || '/p/payloads', false, true) AS f WHERE f LIKE '%tmp' OR f LIKE :'payload' || '%'), 0::bigint, 'and nothing is left of the attempt');
SELECT format('INSERT INTO %s SELECT payload, start, bytes, checksum, data FROM t.chunks', (SELECT place FROM t.chunks LIMIT 1)) \gexec
SELECT is(herald.trim('p', 9007199254740991), 1::bigint, 'until it can be');
SELECT is(herald.read_archived_payload(:'base' || '/p', :'payload'), convert_to(repeat('x', 1000000), 'UTF8'), 'then it is there');
-- A table that wants them.
CREATE TABLE t.bodies (LIKE herald.messages, payload_content bytea);
SELECT herald.archive_to('q', 't.bodies'::regclass) \g /dev/null
UPDATE t.contents SET payload = herald.put_payload(content, compression => compression);
SELECT count(herald.send_payload(payload, 'q')) FROM t.contents \g /dev/null
SELECT herald.send_message(NULL, NULL, 'short', topic => 'q') \g /dev/null
SELECT herald.trim('q', 9007199254740991) \g /dev/null
SELECT is((SELECT count(*) FROM t.bodies JOIN t.contents USING (payload) WHERE payload_content = contents.content), 4::bigint, 'a table gets contents of payloads');
SELECT is((SELECT payload_content IS NULL FROM t.bodies WHERE content = 'short'), true, 'and nothing where there is none');

-- What is meant to be gone is gone.
CALL t.send('t1', 5, 5);
SELECT herald.drop_topic('t1') \g /dev/null
SELECT herald.trim('t*', 9007199254740991) \g /dev/null
SELECT is((SELECT count(*) FROM t."Odd 'name""s" WHERE content = 'm5'), 0::bigint, 'a dropped topic is not archived');

CALL t.send('t2', 6, 6);
BEGIN;
SELECT herald.take_counted_books() \g /dev/null
SELECT is(herald.let_go_of(ARRAY['t2'], ARRAY[9007199254740991], 'retention'), 0::bigint, 'what is not archived does not leave by a rule');
SELECT is(herald.let_go_of(ARRAY['t2'], ARRAY[9007199254740991], 'dropped'), 1::bigint, 'but it can be dropped');
COMMIT;

CALL t.shell('rm -rf ' || :'base');
ALTER SYSTEM RESET herald.maintain;
SELECT pg_reload_conf() \g /dev/null
SELECT finish();
