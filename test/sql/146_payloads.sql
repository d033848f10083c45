-- Payloads: contents beside the log, in parts, by reference.
\ir helpers.psql
SELECT plan(174);
-- The keeper would be at the same tables as maintain().
SELECT herald.horizon() \g /dev/null
ALTER SYSTEM SET herald.maintain = off;
SELECT pg_reload_conf() \g /dev/null
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'herald keeper' \g /dev/null

-- 700,000 bytes in three chunks: text that compresses, and noise that doesn't.
CREATE FUNCTION t.text(bytes int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT convert_to(left(string_agg('line ' || n, E'\n'), bytes), 'UTF8') FROM generate_series(1, bytes / 6) n $$;
CREATE FUNCTION t.noise(bytes int, seed int DEFAULT 1) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT substr(string_agg(sha256(convert_to(seed || ' ' || n, 'UTF8')), ''::bytea ORDER BY n), 1, bytes)
    FROM generate_series(1, bytes / 32 + 1) n $$;
CREATE TABLE t.content AS SELECT 'text' AS kind, t.text(700000) AS bytes UNION ALL SELECT 'noise', t.noise(700000);
CREATE FUNCTION t.of(kind text) RETURNS bytea LANGUAGE sql STABLE AS $$ SELECT bytes FROM t.content c WHERE c.kind = of.kind $$;
CREATE FUNCTION t.chunks(payload uuid) RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM herald.payload_chunk c WHERE c.payload = chunks.payload $$;

-- Put and read, each compression.
CREATE TABLE t.put AS SELECT kind, method, herald.put_payload(bytes, 'application/x-test', method) AS id
FROM t.content, unnest(ARRAY['none', 'gzip', 'zstd']) method;
SELECT is(herald.payload_read(id) = t.of(kind), true, format('%s as %s comes back', kind, method)) FROM t.put;
SELECT is(t.chunks(id), 3::bigint, format('%s as %s is in chunks', kind, method)) FROM t.put;
SELECT is(chunks, 3::bigint, format('and %s as %s says so', kind, method)) FROM t.put JOIN herald.payloads USING (id);
SELECT is((p.state, p.content_type, p.bytes, p.checksum, p.owner)::text,
    ('complete'::text, 'application/x-test'::text, 700000::bigint, 'sha256:' || encode(sha256(t.of(kind)), 'hex'), current_user)::text,
    format('%s as %s in herald.payloads', kind, method))
FROM t.put JOIN herald.payloads p USING (id);
SELECT cmp_ok(stored_bytes, CASE WHEN kind = 'text' AND method <> 'none' THEN '<' ELSE '>=' END,
    CASE WHEN kind = 'text' AND method <> 'none' THEN 350000::bigint ELSE 699000 END,
    format('%s as %s takes what it should', kind, method))
FROM t.put JOIN herald.payloads p USING (id);

-- Ranges: at and over the borders of chunks and of the content.
SELECT is_empty($$ SELECT kind, method, first, length FROM t.put,
    unnest(ARRAY[0, 1, 262143, 262144, 262145, 500000, 524288, 699999, 700000]) first,
    unnest(ARRAY[0, 1, 2, 262144, 262145, 600000, 800000]) length
    WHERE herald.payload_read(id, first, length) IS DISTINCT FROM substr(t.of(kind), first + 1, length) $$,
    'every range is what substr() gives');
SELECT is(herald.payload_read(id, 699990), substr(t.of(kind), 699991), 'without a length: the rest') FROM t.put LIMIT 1;
SELECT id AS put FROM t.put WHERE kind = 'text' AND method = 'zstd' \gset
SELECT t.fails(format('SELECT herald.payload_read(%L, 700001)', :'put'), '22023', '700001.*700000', 'a range beyond the end');
SELECT t.fails(format('SELECT herald.payload_read(%L, -1)', :'put'), '22023', 'offset is -1', 'a negative offset');
SELECT t.fails(format('SELECT herald.payload_read(%L, 0, -1)', :'put'), '22023', 'length is -1', 'a negative length');
SELECT t.fails('SELECT herald.payload_read(NULL)', '22004', 'payload', 'no payload');
SELECT t.fails(format('SELECT herald.payload_read(%L, NULL)', :'put'), '22004', 'offset', 'no offset');
SELECT t.fails($$ SELECT herald.payload_read('00000000-0000-7000-8000-000000000000') $$, 'P0002', '00000000-0000-7000', 'an unknown one');

-- As it is stored: frames that are a stream together.
SELECT is((SELECT array_agg((start, bytes)::text) FROM herald.payload_stored(:'put', 0, 1000000000)),
    ARRAY['(0,262144)', '(262144,262144)', '(524288,175712)'], 'stored: all chunks');
SELECT is((SELECT array_agg(start) FROM herald.payload_stored(:'put', 300000, 1)), ARRAY[262144]::bigint[], 'stored: the one with that byte');
SELECT is((SELECT count(*) FROM herald.payload_stored(:'put', 700000, 1)), 0::bigint, 'stored: none at the end');
SELECT is((SELECT string_agg(s.data, ''::bytea ORDER BY start) FROM herald.payload_stored(id, 0, 1000000000) s), t.of(kind), 'stored without compression: the content')
FROM t.put WHERE method = 'none';
SELECT is(encode(substr(s.data, 1, 4), 'hex'), CASE method WHEN 'zstd' THEN '28b52ffd' ELSE '1f8b0800' END,
    format('%s of %s at %s is a frame', method, kind, start))
FROM t.put, herald.payload_stored(id, 0, 1000000000) s WHERE method <> 'none';
SELECT t.fails(format('SELECT * FROM herald.payload_stored(%L, 0, 0)', :'put'), '22023', 'max_bytes is 0', 'stored: no room');
SELECT t.fails(format('SELECT * FROM herald.payload_stored(%L, 700001, 1)', :'put'), '22023', '700001', 'stored: beyond the end');
SELECT t.fails(format('SELECT * FROM herald.payload_stored(%L, -1, 1)', :'put'), '22023', 'from is -1', 'stored: before the beginning');

-- Bad arguments of put.
SELECT t.fails($$ SELECT herald.put_payload(NULL) $$, '22004', 'content', 'put: no content');
SELECT t.fails($$ SELECT herald.put_payload('x', NULL) $$, '22004', 'content_type', 'put: no content type');
SELECT t.fails($$ SELECT herald.put_payload('x', compression => NULL) $$, '22004', 'compression', 'put: NULL is no compression');
SELECT t.fails($$ SELECT herald.put_payload('x', compression => 'brotli') $$, '22023', 'brotli', 'put: an unknown compression');
SELECT t.fails(format('SELECT herald.put_payload(%L, %L)', 'x', type), '22023', 'content_type', format('put: content type %L', type))
FROM unnest(ARRAY['', 'text', '/plain', 'text/', ' text/plain', E'text/plain\r\nX-Evil: 1', 'text/plän', 'text/' || repeat('x', 300)]) type;
SELECT t.fails($$ SELECT herald.put_payload('x', digest => 'short') $$, '22023', '5 bytes', 'put: a digest that is none');
SELECT t.fails($$ SELECT herald.put_payload('x', digest => sha256('y')) $$, '22000', encode(sha256('y'), 'hex'), 'put: the wrong digest');
SELECT lives_ok($$ SELECT herald.put_payload('x', digest => sha256('x')) $$, 'put: the right digest');
SELECT is(herald.payload_read(herald.put_payload('')), ''::bytea, 'nothing is a content, too');

-- In parts, of any size, in any number of transactions.
SELECT herald.payload_open('text/plain', 'gzip') AS up \gset
SELECT is((state, bytes, checksum, completed_at)::text, '(pending,0,,)', 'an upload') FROM herald.payloads WHERE id = :'up';
SELECT is(herald.payload_write(:'up', 'abc'), 3::bigint, 'write returns the end');
SELECT is(herald.payload_write(:'up', 'def', 3), 6::bigint, 'write at the end');
SELECT t.fails(format('SELECT herald.payload_write(%L, %L, 3)', :'up', 'again'), '22023', 'offset 3 .* which is 6', 'write elsewhere: told where the end is');
SELECT t.fails(format('SELECT herald.payload_write(%L, %L, 7)', :'up', 'hole'), '22023', 'which is 6', 'no holes');
SELECT is(herald.payload_write(:'up', ''), 6::bigint, 'writing nothing');
SELECT is(herald.payload_read(:'up'), 'abcdef'::bytea, 'its owner reads it while it is pending');
SELECT t.fails(format('SELECT herald.send_payload(%L, %L)', :'up', 'p'), '55000', 'pending, not complete', 'it cannot be sent yet');
SELECT t.fails(format('SELECT herald.payload_close(%L, sha256(%L))', :'up', 'other'), '22000', encode(sha256('abcdef'), 'hex'), 'closing with another digest');
SELECT is((SELECT state FROM herald.payloads WHERE id = :'up'), 'pending', 'and it is still pending');
SELECT is(herald.payload_close(:'up', sha256('abcdef')), sha256('abcdef'), 'close returns the digest');
SELECT t.fails(format('SELECT herald.payload_write(%L, %L)', :'up', 'x'), '55000', 'complete, not pending', 'no writing after that');
SELECT t.fails(format('SELECT herald.payload_close(%L)', :'up'), '55000', 'complete, not pending', 'no closing');
SELECT t.fails(format('SELECT herald.payload_abort(%L)', :'up'), '55000', 'complete, not pending', 'no aborting');
SELECT t.fails($$ SELECT herald.payload_write('00000000-0000-7000-8000-000000000000', 'x') $$, 'P0002', '00000000', 'writing to an unknown one');
SELECT t.fails(format('SELECT herald.payload_write(%L, NULL)', :'up'), '22004', 'content', 'writing NULL');

DO $$
DECLARE
    up uuid := herald.payload_open();
    done bigint := 0;
BEGIN
    WHILE done < 700000 LOOP
        done := herald.payload_write(up, substr(t.of('noise'), done::int + 1, 1 + (done * 7919 % 100000)::int), done);
    END LOOP;
    PERFORM herald.payload_close(up, sha256(t.of('noise')));
    IF (SELECT chunks FROM herald.payloads WHERE id = up) <> t.chunks(up) THEN
        RAISE 'an upload in odd parts miscounts its chunks';
    END IF;
    IF herald.payload_read(up, 100000, 300000) <> substr(t.of('noise'), 100001, 300000) THEN
        RAISE 'a range of an upload in odd parts is not what was written';
    END IF;
END $$;
SELECT pass('an upload in odd parts');

SELECT herald.payload_open(bytes => 10) AS sized \gset
SELECT t.fails(format('SELECT herald.payload_write(%L, %L)', :'sized', '12345678901'), '22023', 'have 10 bytes and would have 11', 'more than it was to have');
SELECT herald.payload_write(:'sized', '123456789') \g /dev/null
SELECT t.fails(format('SELECT herald.payload_close(%L)', :'sized'), '22000', 'have 10 bytes and has 9', 'fewer than it was to have');
SELECT herald.payload_write(:'sized', '0', 9) \g /dev/null
SELECT lives_ok(format('SELECT herald.payload_close(%L)', :'sized'), 'all of them');
SELECT t.fails('SELECT herald.payload_open(bytes => -1)', '22023', 'bytes is -1', 'open: fewer than none');
SELECT t.fails($$ SELECT herald.payload_open('nonsense') $$, '22023', 'nonsense', 'open: no content type');

SELECT herald.payload_open() AS aborted \gset
SELECT herald.payload_write(:'aborted', 'abc') \g /dev/null
SELECT herald.payload_abort(:'aborted') \g /dev/null
SELECT is((state, error)::text, '(error,aborted)', 'given up') FROM herald.payloads WHERE id = :'aborted';
SELECT is(t.chunks(:'aborted'), 0::bigint, 'and off the disk');
SELECT t.fails(format('SELECT herald.payload_read(%L)', :'aborted'), 'P0002', :'aborted', 'not to be read');
SELECT t.fails(format('SELECT herald.send_payload(%L, %L)', :'aborted', 'p'), 'P0002', :'aborted', 'nor sent');

-- The limit.
SET herald.max_payload = '1MB';
SELECT t.fails($$ SELECT herald.put_payload(t.noise(1048577)) $$, '54000', '1048577 bytes; the limit is 1048576', 'put: too large');
SELECT t.fails($$ SELECT herald.payload_open(bytes => 1048577) $$, '54000', '1048577', 'open: too large');
SELECT t.fails($$ SELECT herald.payload_write(herald.payload_open(), t.noise(1048577)) $$, '54000', '1048577', 'write: too large');
SELECT t.fails($$ SELECT herald.send_message('s', 'r', repeat('x', 1048577)) $$, '54000', '1048577', 'send: too large');
RESET herald.max_payload;

-- Sent: by reference.
SELECT herald.send_payload(:'up', 'p', 's', 'r', 'command', '{"a": 1}', 'c', 'w', NULL, 3, 'k') AS sent \gset
SELECT is((m.topic, m.sender, m.recipient, m.message_type, m.metadata, m.conversation, m.workspace, m.priority, m.ordering_key, m.payload)::text,
    ('p', 's', 'r', 'command', '{"a": 1}'::jsonb, 'c', 'w', 3, 'k', :'up')::text, 'the message has the options of send_message')
FROM t.row(:'sent') m;
SELECT is(content, format('{"bytes":6,"checksum":"sha256:%s","content_type":"text/plain","href":"/messages/%s"}', encode(sha256('abcdef'), 'hex'), :'sent'),
    'its content is the reference') FROM t.row(:'sent');
SELECT is(herald.envelope(m)::jsonb -> 'ref', m.content::jsonb, 'as in the envelope') FROM t.row(:'sent') m;
SELECT is(herald.envelope(m)::jsonb ? 'content', false, 'which has no content') FROM t.row(:'sent') m;
SELECT is(herald.envelope(m, 300)::jsonb ? 'metadata', false, 'the shortest envelope leaves the metadata') FROM t.row(:'sent') m;
SELECT is(herald.envelope(m, 300)::jsonb -> 'ref', m.content::jsonb, 'to the reference') FROM t.row(:'sent') m;
SELECT is(herald.payload_read(:'up'), 'abcdef'::bytea, 'it can be read');
SELECT isnt(herald.send_payload(:'up', 'p'), :'sent', 'sent once more: another message of it');
SELECT is((messages, bytes)::text, '(2,12)', 'topics count its bytes') FROM herald.topics WHERE name = 'p';
SELECT herald.maintain() \g /dev/null
SELECT is((messages, bytes)::text, '(2,12)', 'also once they are counted') FROM herald.topics WHERE name = 'p';
SELECT is(herald.send_payload(:'up', 'p', idempotency_key => 'i'), herald.send_payload(:'up', 'p', idempotency_key => 'i'), 'a key makes it one message');
SELECT t.fails('SELECT herald.send_payload(NULL)', '22004', 'payload', 'send: no payload');
SELECT t.fails($$ SELECT herald.send_payload('00000000-0000-7000-8000-000000000000') $$, 'P0002', '00000000', 'send: an unknown one');
SELECT t.fails(format($$ SELECT herald.send_payload(%L, 'p*') $$, :'up'), '22023', 'p\*', 'send: rules of a send hold');

BEGIN;
SELECT herald.put_payload('same') AS same \gset
SELECT herald.send_payload(:'same', 'same') AS same_sent \gset
SELECT is(herald.payload_read(:'same'), 'same'::bytea, 'put, sent and read in one transaction');
ROLLBACK;
SELECT t.fails(format('SELECT herald.payload_read(%L)', :'same'), 'P0002', :'same', 'rolled back, it never was');

-- In objects and batches.
SELECT herald.send_object(jsonb_build_object('payload_id', :'up', 'topic', 'o', 'sender', 's')) AS object \gset
SELECT is((payload, sender)::text, format('(%s,s)', :'up'), 'send_object takes payload_id') FROM t.row(:'object');
SELECT is((SELECT count(*) FROM herald.send_batch(jsonb_build_array(jsonb_build_object('payload_id', :'up', 'topic', 'o'),
    jsonb_build_object('content', 'x', 'topic', 'o')))), 2::bigint, 'and so does a batch');
SELECT t.fails(format($$ SELECT herald.send_object('{"payload_id": "%s", "content": "x"}') $$, :'up'), '22023', 'both payload_id and content', 'not with a content');
SELECT t.fails(format($$ SELECT herald.send_object('{"payload_id": "%s", "payload": 1, "topic": "o"}') $$, :'up'), '22023', 'both payload_id and payload', 'nor with a payload');
SELECT t.fails($$ SELECT herald.send_object('{"payload_id": "nonsense"}') $$, '22023', 'payload_id must be a UUID', 'which is an id');

-- Large contents become payloads by themselves.
SET herald.inline_limit = '10kB';
SELECT herald.send_message('s', NULL, repeat('x', 10240), topic => 'l') AS small \gset
SELECT is(payload, NULL, 'up to the limit: in the log') FROM t.row(:'small');
SELECT herald.send_message('s', NULL, repeat('ü', 5121), topic => 'l') AS large \gset
SELECT is((p.bytes, p.content_type)::text, '(10242,"text/plain; charset=utf-8")', 'above it: a payload') FROM t.row(:'large') m JOIN herald.payloads p ON p.id = m.payload;
SELECT is(convert_from(herald.payload_read(payload), 'UTF8'), repeat('ü', 5121), 'with that content') FROM t.row(:'large');
SELECT herald.publish('l', to_jsonb(repeat('x', 20000))) AS json \gset
SELECT is(p.content_type, 'application/json', 'publish: as JSON') FROM t.row(:'json') m JOIN herald.payloads p ON p.id = m.payload;
SELECT is(convert_from(herald.payload_read(payload), 'UTF8')::jsonb, to_jsonb(repeat('x', 20000)), 'the value') FROM t.row(:'json');
SELECT is(p.bytes, 20000::bigint, 'reply too') FROM t.row(herald.reply(herald.send_message('a', 'b', 'x'), repeat('x', 20000))) m JOIN herald.payloads p ON p.id = m.payload;
SELECT is(count(payload), 2::bigint, 'and batches') FROM herald.send_batch(jsonb_build_array(jsonb_build_object('content', repeat('x', 20000)),
    jsonb_build_object('payload', repeat('y', 20000), 'topic', 'l'))) id, t.row(id);
SELECT is(count(DISTINCT id), 1::bigint, 'a repeated key stores nothing') FROM generate_series(1, 3),
    herald.send_message('s', NULL, repeat('x', 20000), topic => 'keyed', idempotency_key => 'k') id;
SELECT is((SELECT count(*) FROM herald.payloads p WHERE NOT EXISTS (SELECT FROM herald.message m WHERE m.payload = p.id)
    AND p.content_type = 'text/plain; charset=utf-8'), 0::bigint, 'not even a payload');
RESET herald.inline_limit;

-- The log and its triggers.
SELECT t.fails(format($$ INSERT INTO herald.message (topic, content, payload) VALUES ('p', '{}', %L) $$, :'up'), '428C9', 'INSERT or COPY', 'not by INSERT');
SELECT t.fails('SELECT herald.payload_restored()', '39P01', 'trigger', 'the trigger is none to call');

SELECT t.fails(format($$ INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json, payload)
    VALUES (900, gen_random_uuid(), 'p', now(), 'x', %L, 0, true, %L) $$, content, :'up'), state, message, format('restored with content %s', content), state <> '22P02')
FROM (VALUES ('{}', '22023', 'message 900'), ('{"bytes":-1}', '22023', 'message 900'), ('nonsense', '22P02', 'json'), ('{"bytes":"many"}', '22P02', 'many')) c (content, state, message);

-- Limits of bytes count payloads as they are.
SELECT herald.send_payload(:'put', 'limited') FROM generate_series(1, 3) \g /dev/null
SELECT herald.set_retention('limited', max_bytes => 1400000) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT is((messages, bytes)::text, '(2,1400000)', 'max_bytes') FROM herald.topics WHERE name = 'limited';

-- Gone with their topic, at once.
SELECT herald.put_payload('doomed') AS doomed \gset
SELECT herald.send_payload(:'doomed', 'doomed') AS doomed_message \gset
SELECT herald.drop_topic('doomed') \g /dev/null
SELECT t.fails(format('SELECT herald.payload_read(%L)', :'doomed'), 'P0002', :'doomed', 'of a dropped topic, not even its owner reads it');
SELECT t.fails(format('SELECT herald.send_payload(%L)', :'doomed'), 'P0002', :'doomed', 'or sends it');

-- Who read it.
SELECT herald.put_payload(t.noise(300000)) AS seen \gset
SELECT is(accessed_at, NULL, 'nobody has read it') FROM herald.payloads WHERE id = :'seen';
SELECT herald.payload_read(:'seen', 0, 1) \g /dev/null
SELECT is(accessed_at BETWEEN completed_at AND clock_timestamp(), true, 'its owner has') FROM herald.payloads WHERE id = :'seen';
SELECT accessed_at AS first FROM herald.payloads WHERE id = :'seen' \gset
SELECT herald.payload_read(:'seen', 0, 1) \g /dev/null
SELECT is(accessed_at, :'first', 'within a minute it is not noted again') FROM herald.payloads WHERE id = :'seen';
UPDATE herald.payload SET accessed_at = accessed_at - interval '61 seconds' WHERE id = :'seen';
SELECT herald.payload_stored(:'seen', 0, 1) \g /dev/null
SELECT cmp_ok(accessed_at, '>', :'first', 'a minute later it is') FROM herald.payloads WHERE id = :'seen';
UPDATE herald.payload SET accessed_at = :'first' WHERE id = :'seen';
BEGIN READ ONLY;
SELECT is(length(herald.payload_read(:'seen')), 300000, 'READ ONLY transactions read');
COMMIT;
SELECT is(accessed_at, :'first', 'unseen') FROM herald.payloads WHERE id = :'seen';
SELECT is((SELECT count(*) FROM herald.payload_audit), 0::bigint, 'herald.audit is off');

SET herald.audit = on;
SELECT herald.payload_read(:'seen', first, 100000) FROM unnest(ARRAY[0, 100000, 200000]) first \g /dev/null
SELECT is((SELECT array_agg((payload, message, role, "offset")::text) FROM herald.payload_audit),
    ARRAY[format('(%s,,%s,0)', :'seen', current_user)], 'one row for a transfer in pages');
SELECT herald.send_payload(:'seen', 'seen') AS seen_message \gset
SELECT herald.payload_read(:'seen', 5, 10) \g /dev/null
SELECT is((SELECT array_agg((message, "offset")::text) FROM herald.payload_audit WHERE message IS NOT NULL), ARRAY[format('(%s,5)', :'seen_message')],
    'another one, and by which message');
BEGIN READ ONLY;
SELECT herald.payload_read(:'seen', 0, 1) \g /dev/null
COMMIT;
SELECT is((SELECT count(*) FROM herald.payload_audit), 3::bigint, 'READ ONLY is no way around');
BEGIN;
SELECT herald.payload_read(:'seen', 0, 200000) \g /dev/null
ROLLBACK;
SELECT herald.payload_read(:'seen', 200000, 1) \g /dev/null
SELECT is((SELECT array_agg("offset" ORDER BY at) FROM herald.payload_audit), ARRAY[0, 5, 0, 200000]::bigint[],
    'what goes on after a rollback is noted where it does');
RESET herald.audit;
SELECT herald.set_retention('*', max_age => '1 day') \g /dev/null
UPDATE herald.payload_audit SET at = at - interval '2 days' WHERE "offset" = 5;
SELECT herald.maintain() \g /dev/null
SELECT is((SELECT array_agg("offset" ORDER BY at) FROM herald.payload_audit), ARRAY[0, 0, 200000]::bigint[], 'old rows go');
SELECT herald.reset_retention('*') \g /dev/null

-- Their time: by another clock.
SELECT herald.payload_open() AS forgotten \gset
SELECT herald.payload_write(:'forgotten', 'abc') \g /dev/null
SELECT herald.put_payload('not sent') AS unsent \gset
SELECT is(expires_at BETWEEN now() + interval '59 minutes' AND now() + interval '61 minutes', true, format('%s: an hour', state))
FROM herald.payloads WHERE id IN (:'forgotten', :'unsent');
SELECT herald.maintain_at(clock_timestamp() + interval '59 minutes') \g /dev/null
SELECT is((SELECT string_agg(state, ' ' ORDER BY id) FROM herald.payloads WHERE id IN (:'forgotten', :'unsent')), 'pending complete', 'before it nothing goes');
SELECT herald.maintain_at(clock_timestamp() + interval '61 minutes') \g /dev/null
SELECT is((SELECT string_agg(state, ' ' ORDER BY id) FROM herald.payloads WHERE id IN (:'forgotten', :'unsent')), 'expired expired', 'after it they do');
SELECT is(t.chunks(:'forgotten') + t.chunks(:'unsent'), 0::bigint, 'off the disk');
SELECT t.fails(format('SELECT herald.payload_write(%L, %L)', :'forgotten', 'x'), '55000', 'is expired, not pending', 'writing to an expired one');
SELECT t.fails(format('SELECT herald.payload_read(%L)', :'unsent'), 'P0002', :'unsent', 'reading it');
SELECT t.fails(format('SELECT herald.send_payload(%L)', :'unsent'), 'P0002', :'unsent', 'sending it');
SELECT is(state || coalesce(expires_at::text, ' with its messages'), 'complete with its messages', 'what was sent stays')
FROM herald.payloads WHERE id = :'seen';
SELECT is(length(herald.payload_read(:'seen')), 300000, 'and can be read');

-- They go with the segment.
SELECT is((SELECT string_agg(format('%s %s', number, held_by), ', ' ORDER BY number) FROM herald.payload_segments), '0 open, 1 open', 'what holds the tables');
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_payload(:'seen', 'forward') \g /dev/null
SELECT is((SELECT string_agg(format('%s %s', number, held_by), ', ' ORDER BY number) FROM herald.payload_segments), '0 messages, 1 open, 2 open', 'in the next segment');
SELECT herald.trim('*', 1000000000) \g /dev/null
SELECT herald.maintain() \g /dev/null
SELECT is((SELECT held_by FROM herald.payload_segments WHERE number = 0), 'messages', 'a message of the new segment holds the old table');
SELECT is((SELECT bytes FROM herald.topics WHERE name = 'forward'), 300000::bigint, 'and its bytes');
SELECT is(length(herald.payload_read(:'seen')), 300000, 'and can be read still');
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_message('s', NULL, 'x', topic => 'kept') \g /dev/null
SELECT herald.trim('*', 2000000000) \g /dev/null
SELECT t.fails(format('SELECT herald.payload_read(%L)', :'seen'), 'P0002', :'seen', 'without messages: at once not to be read');
SELECT herald.maintain() \g /dev/null
SELECT is((SELECT string_agg(format('%s %s', number, held_by), ', ' ORDER BY number) FROM herald.payload_segments), '2 open, 3 open', 'then the tables are gone');
SELECT is((SELECT count(*) FROM herald.payloads), 0::bigint, 'with all that was in them');
SELECT is((SELECT count(*) FROM herald.payload_audit), 0::bigint, 'and who read it');
SELECT is((SELECT count(*) FROM pg_depend d WHERE d.deptype = 'e' AND d.objid = 'herald.payload_3'::regclass), 1::bigint, 'new ones belong to the extension');

ALTER SYSTEM RESET herald.maintain;
SELECT pg_reload_conf() \g /dev/null
SELECT * FROM finish();
