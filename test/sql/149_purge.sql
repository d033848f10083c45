-- Purging, and rewriting segments of which little is kept; here by herald.maintain().
\ir helpers.psql
SELECT plan(49);

CREATE PROCEDURE t.maintain() LANGUAGE plpgsql AS $$
BEGIN
    -- Others, as the dispatcher, may have the log open just then.
    LOOP
        PERFORM herald.maintain();
        COMMIT;
        EXIT WHEN NOT EXISTS (SELECT FROM herald.rewritable_tables() UNION ALL
                              SELECT FROM herald.removable_segments());
    END LOOP;
END $$;
CREATE FUNCTION t.rows(number int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM herald.message_%s', number) INTO n;
    RETURN n;
END $$;
CREATE FUNCTION t.purges() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s %s', topics, segments, tables), ', ' ORDER BY asked_at) FROM herald.purges $$;
-- The keeper would do all this by itself.
SELECT herald.horizon() \g /dev/null
ALTER SYSTEM SET herald.maintain = off;
SELECT pg_reload_conf() \g /dev/null
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'herald keeper' \g /dev/null

-- Sparse segments.
SET herald.segment_size = '1MB';
INSERT INTO herald.message (topic, content) SELECT 'much', repeat('x', 200) FROM generate_series(1, 1000);
INSERT INTO herald.message (topic, content) SELECT 'few', n || repeat('y', 5000) FROM generate_series(1, 5) n;
SELECT herald.send_message('s', NULL, 'short', topic => 'few', ttl => '1 hour', idempotency_key => 'k') \g /dev/null
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_message('s', NULL, 'next', topic => 'much') \g /dev/null
CALL t.maintain();
SELECT is((SELECT (held_by, rewriting, messages)::text FROM herald.segments WHERE number = 0), '(messages,f,1006)', 'a segment that is full of what is kept');
SELECT is((SELECT (messages, inline_bytes)::text FROM herald.segment_book WHERE segment = 0), '(1006,225010)', 'what was counted in it');
SELECT pos AS third FROM herald.messages WHERE topic = 'much' ORDER BY pos OFFSET 300 LIMIT 1 \gset
SELECT is(herald.trim('much', :third), 300::bigint, 'less than half of it goes');
SELECT is((SELECT rewriting FROM herald.segments WHERE number = 0), false, 'rewriting it would not pay');
SELECT is(herald.trim('much', 1000000000), 700::bigint, 'nearly all goes');
SELECT is((SELECT (held_by, rewriting, messages)::text FROM herald.segments WHERE number = 0), '(messages,t,6)', 'now it would');
SET herald.segment_size = '1GB';
SELECT is((SELECT rewriting FROM herald.segments WHERE number = 0), false, 'but not for a small segment');
SET herald.segment_size = '1MB';
SELECT is(t.rows(0), 1006::bigint, 'all is there yet');
SELECT md5(string_agg(herald.envelope(m)::text, '' ORDER BY pos)) AS before FROM herald.read('few') m \gset
CALL t.maintain();
SELECT is(t.rows(0), 6::bigint, 'what is kept is left');
SELECT cmp_ok((SELECT disk_bytes FROM herald.segments WHERE number = 0), '<', 300000::bigint, 'on less disk');
SELECT is((SELECT md5(string_agg(herald.envelope(m)::text, '' ORDER BY pos)) FROM herald.read('few') m), :'before', 'byte for byte');
SELECT is((SELECT (messages, bytes)::text FROM herald.topics WHERE name = 'few'), '(6,25010)', 'the counters');
SELECT is((SELECT (messages, inline_bytes)::text FROM herald.segment_book WHERE segment = 0), '(6,25010)', 'what is in the segment now');
SELECT is(herald.send_message('s', NULL, '', topic => 'few', idempotency_key => 'k'), (SELECT id FROM herald.messages WHERE content = 'short'), 'an idempotency key');
SELECT is((SELECT array_agg(indisvalid AND indisready) FROM pg_index WHERE indrelid = 'herald.message_0'::regclass), array_fill(true, ARRAY[(SELECT count(*)::int FROM pg_index WHERE indrelid = 'herald.message_1'::regclass)]), 'all indexes');
SELECT is((SELECT count(*) FROM herald.rewrite_tables()), 0::bigint, 'no table is left over');
SELECT is((SELECT rewriting FROM herald.segments WHERE number = 0), false, 'it is done');
SELECT t.fails('SELECT herald.rewrite_table(''herald.message_0'')', '55000', 'message_0 is not to be rewritten', 'nobody else rewrites');
SELECT t.fails('SELECT herald.rewrite_table(''pg_class'')', '55000', 'pg_class is not to be rewritten', 'other tables are not ours');

-- Tables of payloads.
SELECT herald.start_segment() \g /dev/null
SELECT herald.next_free_position() / herald.segment_width() AS n \gset
CREATE FUNCTION t.put(content bytea, topic text) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    id uuid := herald.put_payload(content, compression => 'none');
BEGIN
    PERFORM herald.send_payload(id, topic);
    RETURN id;
END $$;
CREATE FUNCTION t.payload_table(n bigint) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s %s %s', held_by, rewriting, disk_bytes / 100000) FROM herald.payload_segments WHERE number = n $$;
SELECT t.put(convert_to(repeat('k', 100000), 'UTF8'), 'few') AS few, t.put('both', 'much') AS both,
       herald.put_payload('unsent') AS unsent \gset
SELECT herald.send_payload(:'both', 'few') \g /dev/null
SELECT count(t.put(convert_to(repeat('m', 100000), 'UTF8'), 'much')) FROM generate_series(1, 9) \g /dev/null
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_message('s', NULL, 'next', topic => 'much') \g /dev/null
CALL t.maintain();
SELECT pos AS third FROM herald.messages WHERE topic = 'much' AND payload IS NOT NULL ORDER BY pos OFFSET 4 LIMIT 1 \gset
SELECT is(t.payload_table(:n), 'uploads f 11', 'a table of what is kept');
SELECT is((SELECT count(*) FROM herald.payload_book), 0::bigint, 'of which nothing was let go');
SELECT herald.trim('much', :third) \g /dev/null
CALL t.maintain();
SELECT is(t.payload_table(:n), 'uploads f 11', 'less than half of it has gone');
SELECT is((SELECT 10 * kept_bytes / file_bytes FROM herald.payload_book WHERE segment = :n), 7::numeric::bigint, 'as it was noted');
SELECT herald.trim('much', 9007199254740991) \g /dev/null
CALL t.maintain();
SELECT is(t.payload_table(:n), 'uploads f 1', 'then it is written anew');
SELECT is((SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM (SELECT state, count(*) FROM herald.payloads WHERE segment = :n GROUP BY state) s), 'complete 3, expired 9', 'what is in it');
SELECT is(herald.payload_read(:'few'), convert_to(repeat('k', 100000), 'UTF8'), 'a payload that is kept');
SELECT is(herald.payload_read(:'both'), 'both', 'one that was in a message that is not');
SELECT is(herald.payload_read(:'unsent'), 'unsent', 'and one in none yet');
SELECT is((SELECT count(*) FROM herald.payload_chunk AS c JOIN herald.payload AS p ON p.id = c.payload WHERE p.segment = :n), 3::bigint, 'nothing else is there');
SELECT is((SELECT kept_bytes = file_bytes AND file_bytes BETWEEN 100000 AND 101000 FROM herald.payload_book WHERE segment = :n), true, 'as it is noted');
SELECT is(herald.look_at_payloads(), NULL, 'nothing more to be looked at');
SELECT is((SELECT count(*) FROM herald.rewrite_tables()), 0::bigint, 'no table of these is left over');
SELECT is(herald.purge('few') > 0, true, 'a purge with payloads');
SELECT matches(t.purges(), format('{payload_%s}', :n), 'wants their table to be rewritten');
CALL t.maintain();
SELECT is((SELECT array_agg(DISTINCT p.id) FROM herald.payload_chunk AS c JOIN herald.payload AS p ON p.id = c.payload WHERE p.segment = :n), ARRAY[:'unsent'::uuid], 'and it is');

-- Purging.
SELECT is(herald.purge('nothing'), 0::bigint, 'nothing to purge');
SELECT herald.send_message('s', NULL, 'm', topic => topic) FROM unnest(ARRAY['p:1', 'p:2', 'p:2', 'q']) topic \g /dev/null
SELECT is(herald.purge('p:*'), 3::bigint, 'a pattern');
SELECT is((SELECT count(*) FROM herald.read('p:*')), 0::bigint, 'nothing to be read');
SELECT is((SELECT (to_pos > 0, why)::text FROM herald.gap('p:2', 1)), '(t,dropped)', 'readers are told');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'q'), 1::bigint, 'others stay');
SELECT matches(t.purges(), '^nothing {} {}, p:\* {\d} {}$', 'what is to be done');
CALL t.maintain();
SELECT is((SELECT count(*) FROM herald.message WHERE topic ~ '^p:'), 0::bigint, 'it is gone from the log');
SELECT ok(t.purges() IS NULL OR current_setting('shared_preload_libraries') ~ 'pg_herald', 'it is done');
SELECT is((SELECT count(*) FROM herald.read('q')), 1::bigint, 'others are there');
SELECT t.fails('SELECT herald.purge(NULL)', '22004', 'topics', 'purge of NULL');
SELECT t.fails('SELECT herald.purge(''a[b'')', '22023', 'character', 'no pattern');
BEGIN;
SELECT herald.send_message('s', NULL, 'own', topic => 'q') \g /dev/null
SELECT CASE WHEN herald.has_unsettled() THEN t.fails('SELECT herald.purge(''q'')', '25001', 'has sent messages', 'in a transaction that has sent')
    ELSE pass('in a transaction that has sent: without the engine its messages are settled') END;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT t.fails('SELECT herald.purge(''q'')', '25001', 'REPEATABLE READ', 'with one snapshot');
ROLLBACK;
SELECT herald.trim('*', 9007199254740991) \g /dev/null
CALL t.maintain();
SELECT is((SELECT count(*) FROM herald.segment_book b WHERE b.segment NOT IN (SELECT number FROM herald.segments)), 0::bigint, 'the books know only segments that are there');

ALTER SYSTEM RESET herald.maintain;
SELECT pg_reload_conf() \g /dev/null
SELECT finish();
