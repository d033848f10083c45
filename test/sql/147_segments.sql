-- Segments of the log: when a new one begins, what holds an old one, that they go.
\ir helpers.psql
SELECT plan(52);

-- Removing a segment needs that nobody, not even the dispatcher, has the log open just then.
CREATE PROCEDURE t.maintain(at timestamptz DEFAULT clock_timestamp()) LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM herald.maintain_at(at);
        COMMIT;
        EXIT WHEN NOT EXISTS (SELECT FROM herald.removable_segments());
    END LOOP;
END $$;
-- The keeper would do all this by itself, by the real clock.
SELECT herald.horizon() \g /dev/null
ALTER SYSTEM SET herald.maintain = off;
SELECT pg_reload_conf() \g /dev/null
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'herald keeper' \g /dev/null

CREATE FUNCTION t.segments() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s %s %s', number, held_by, messages), ', ' ORDER BY number) FROM herald.segments $$;
SELECT clock_timestamp() + interval '10 minutes' AS t1 \gset

SELECT is(t.segments(), '0 open 0, 1 ahead 0', 'a new log');
SELECT is((SELECT (first_pos, last_pos, bytes, topics, sessions)::text FROM herald.segments WHERE number = 1),
    '(1000000000,1999999999,0,0,)', 'what a segment is made for');
SELECT cmp_ok((SELECT disk_bytes FROM herald.segments WHERE number = 0), '>', 0::bigint, 'the disk it takes');

CREATE FUNCTION t.memberships(segment regclass) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM pg_depend d, pg_class c JOIN pg_type y ON y.oid = c.reltype
    WHERE c.oid = segment AND d.deptype = 'e' AND d.objid IN (c.oid, y.oid, y.typarray) $$;
SELECT herald.make_segment(7000000000) \g /dev/null
SELECT is(t.memberships('herald.message_7'), t.memberships('herald.message_0'), 'a segment that is made later is a member of the extension as the first one is');
DROP EXTENSION pg_herald CASCADE;
CREATE EXTENSION pg_herald;

-- By age.
CALL t.maintain(:'t1');
CALL t.maintain(:'t1'::timestamptz + interval '10 days');
SELECT is(t.segments(), '0 open 0, 1 ahead 0', 'an empty segment does not age');
CALL t.send('a', 1, 3);
CALL t.maintain(:'t1'::timestamptz + interval '10 days');
CALL t.maintain(:'t1'::timestamptz + interval '10 days 23 hours');
SELECT is(t.segments(), '0 open 3, 1 ahead 0', 'herald.segment_age is a day');
CALL t.maintain(:'t1'::timestamptz + interval '11 days');
SELECT is(t.segments(), '0 messages 3, 1 open 0, 2 ahead 0', 'then the next begins, and one more is made');
CALL t.send('a', 4, 4);
SELECT is((SELECT pos FROM herald.messages WHERE content = 'm4'), 1000000000::bigint, 'with the first message after it');
SET herald.segment_age = '1h';
CALL t.maintain(:'t1'::timestamptz + interval '12 days');
CALL t.maintain(:'t1'::timestamptz + interval '12 days 59 minutes');
SELECT is(t.segments(), '0 messages 3, 1 open 1, 2 ahead 0', 'the setting: not yet');
CALL t.maintain(:'t1'::timestamptz + interval '12 days 1 hour');
SELECT is(t.segments(), '0 messages 3, 1 messages 1, 2 open 0, 3 ahead 0', 'the setting');
RESET herald.segment_age;
CALL t.send('a', 5, 5);
SELECT herald.set_retention('*', '80 minutes') \g /dev/null
SELECT herald.set_retention('a', '1 year') \g /dev/null
CALL t.maintain(:'t1'::timestamptz + interval '13 days');
CALL t.maintain(:'t1'::timestamptz + interval '13 days 9 minutes');
SELECT is(t.segments(), '0 messages 3, 1 messages 1, 2 open 1, 3 ahead 0', 'a limit of age for all topics: an eighth of it');
CALL t.maintain(:'t1'::timestamptz + interval '13 days 10 minutes');
SELECT is(t.segments(), '0 messages 3, 1 messages 1, 2 messages 1, 3 open 0, 4 ahead 0', 'is the age of a segment at most');
SELECT herald.reset_retention(topics) FROM herald.retention \g /dev/null

-- By size.
CALL t.send('a', 6, 6);
SET herald.segment_size = '1MB';
CALL t.maintain();
SELECT is(t.segments(), '0 messages 3, 1 messages 1, 2 messages 1, 3 open 1, 4 ahead 0', 'a small segment goes on');
SELECT count(herald.send_message('s', NULL, repeat('x', 1000), topic => 'big')) FROM generate_series(1, 1200) \g /dev/null
CALL t.maintain();
SELECT is(t.segments(), '0 messages 3, 1 messages 1, 2 messages 1, 3 messages 1201, 4 open 0, 5 ahead 0', 'a large one does not');
RESET herald.segment_size;
SELECT throws_ok($$ SET herald.segment_size = '63kB' $$, '22023', NULL, 'the least size');
SELECT throws_ok($$ SET herald.segment_age = '0' $$, '22023', NULL, 'the least age');

-- A segment goes with the last that is kept of it.
SELECT herald.trim('big', 9007199254740991) \g /dev/null
SELECT herald.trim('a', 2000000000) \g /dev/null
SELECT is(t.segments(), '0  0, 1  0, 2 messages 1, 3 messages 1, 4 open 0, 5 ahead 0', 'nothing holds the first two');
SELECT is((SELECT count(sessions) FROM herald.segments WHERE held_by IS NULL), 0::bigint, 'and nobody has them open');
CALL t.maintain();
SELECT is(t.segments(), '2 messages 1, 3 messages 1, 4 open 0, 5 ahead 0', 'they are gone');
SELECT is(to_regclass('herald.message_0')::text, NULL, 'with their tables');
SELECT is(t.contents('a'), 'm5,m6', 'what is kept is there');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('a', 0)), '(1000000000,retention)', 'readers are told of the rest');
SELECT is((SELECT (messages, first_pos)::text FROM herald.topics WHERE name = 'a'), '(2,2000000000)', 'the counters');
BEGIN;
INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json)
    VALUES (5, gen_random_uuid(), 'old', '2020-01-01', 'notification', 'restored', 0, false);
SELECT is(t.contents('old'), 'restored', 'a message that is restored makes its segment again');
SELECT is((SELECT held_by FROM herald.segments WHERE number = 0), 'uncounted', 'which is counted first');
SELECT is((SELECT array_agg(number) FROM herald.removable_segments()), NULL, 'so it does not go');
COMMIT;
CALL t.maintain();
SELECT is((SELECT (held_by, messages)::text FROM herald.segments WHERE number = 0), '(messages,1)', 'and then holds it');

-- Messages that have expired hold nothing.
SELECT herald.start_segment() \g /dev/null
SELECT herald.send_message('s', NULL, 'short', topic => 'e', ttl => '1 hour') \g /dev/null
SELECT herald.send_message('s', NULL, 'longer', topic => 'e', ttl => '2 hours') \g /dev/null
SELECT herald.start_segment() \g /dev/null
CALL t.send('z', 1, 1);
CALL t.maintain(clock_timestamp() + interval '100 minutes');
SELECT is((SELECT messages FROM herald.segments WHERE number = 5), 2::bigint, 'one has expired');
CALL t.maintain(clock_timestamp() + interval '3 hours');
SELECT is((SELECT count(*) FROM herald.segments WHERE number = 5), 0::bigint, 'both have');
SELECT is((SELECT to_pos FROM herald.gap('e', 0)), NULL, 'that is not a gap');

-- A table that was taken out of the log by hand, but not out of the extension.
ALTER TABLE herald.message DETACH PARTITION herald.message_2;
CALL t.maintain();
SELECT is((SELECT held_by FROM herald.segments WHERE number = 2), 'messages', 'a detached segment with messages');
SELECT t.fails($$ INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json)
    VALUES (2000000005, gen_random_uuid(), 'old', '2020-01-01', 'notification', 'restored', 0, false) $$,
    '55006', 'message_2 is being removed', 'nothing is restored into it');
ALTER TABLE herald.message DETACH PARTITION herald.message_3;
ALTER EXTENSION pg_herald DROP TABLE herald.message_3;
CALL t.send('a', 7, 7);
SELECT herald.trim('*', 9007199254740991) \g /dev/null
CALL t.maintain();
SELECT is((SELECT count(*) FROM herald.segments WHERE number < 4), 0::bigint, 'it goes when its messages are let go');
SELECT is((SELECT string_agg(content, ',' ORDER BY pos) FROM herald.message_3 WHERE topic = 'a'), 'm6', 'out of the extension it is somebody''s own');
DROP TABLE herald.message_3;

-- What others make of a segment is theirs.
CALL t.send('a', 8, 8);
SELECT number AS mine FROM herald.segments WHERE held_by = 'open' \gset
SELECT format('CREATE VIEW t.mine AS SELECT * FROM herald.message_%s', :mine) \gexec
SELECT herald.start_segment() \g /dev/null
CALL t.send('a', 9, 9);
SELECT herald.trim('*', 9007199254740991) \g /dev/null
SELECT is((SELECT count(*) FROM herald.waste), 0::bigint, 'small ones leave no waste');
SELECT t.fails(format('SELECT herald.drop_waste(%L)', 'herald.message'), '55000', 'herald.message is no waste', 'only waste is dropped');
SELECT t.fails(format('SELECT herald.remove_segment(%L)', 'pg_class'), '55000', 'not to be removed', 'only segments that may go');
SET client_min_messages = error;
SELECT herald.maintain() \g /dev/null
RESET client_min_messages;
SELECT is((SELECT count(*) FROM t.mine), 3::bigint, 'a view on a segment keeps it, and hinders nothing else');
DROP VIEW t.mine;
CALL t.maintain();
SELECT is((SELECT count(*) FROM herald.segments), 2::bigint, 'of an empty log two segments are left');

-- Of very many topics that have lost messages the oldest starts are one.
SELECT min(number) * herald.segment_width() AS log_start FROM herald.segment_tables() \gset
SELECT ok(:log_start > 0, 'the first segment has gone');
INSERT INTO herald.topic_start (topic, start_pos, why) SELECT 'was:' || n, n, 'dropped' FROM generate_series(1, 5) n;
INSERT INTO herald.topic_start (topic, start_pos, why) SELECT 'new:' || n, :log_start + n, 'dropped' FROM generate_series(1, 2) n;
CREATE TEMP VIEW start AS SELECT string_agg(topic || ' ' || start_pos, ',' ORDER BY start_pos) AS all FROM herald.topic_start
    WHERE topic ~ '^(was:|[*]$)' OR topic LIKE 'new:%' AND start_pos - :log_start < 3;
CREATE TEMP TABLE later AS SELECT count(*) AS starts FROM herald.topic_start WHERE topic !~ '^(was:|[*]$)';
SELECT herald.forget_starts((SELECT starts + 5 FROM later)) \g /dev/null
SELECT is((SELECT start.all FROM start), format('was:1 1,was:2 2,was:3 3,was:4 4,was:5 5,new:1 %s,new:2 %s', :log_start + 1, :log_start + 2), 'as many as may be');
SELECT herald.forget_starts((SELECT starts + 2 FROM later)) \g /dev/null
SELECT is((SELECT start.all FROM start), format('* 3,was:4 4,was:5 5,new:1 %s,new:2 %s', :log_start + 1, :log_start + 2), 'fewer');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:2', 1)), '(3,retention)', 'a topic that is not known any more');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:*', 1)), '(5,dropped)', 'a pattern: the last of all');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('none:*', 1)), '(3,retention)', 'it may have been any');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:2', 3)), '(,)', 'above that, nothing');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:2', 0)), '(,)', 'nor from the beginning');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:5', 1)), '(5,dropped)', 'its own is known better');
SELECT is((SELECT string_agg(topic || ' ' || pos, ',') FROM herald.feed(NULL, 2, 1, 1000, 1000) WHERE envelope IS NULL AND pos < 4), '* 3', 'who reads the whole log');
SELECT herald.forget_starts(0) \g /dev/null
SELECT is((SELECT start.all FROM start), format('* %s,new:1 %s,new:2 %s', :log_start - 1, :log_start + 1, :log_start + 2), 'what the log needs stays');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('was:5', 1)), format('(%s,retention)', :log_start - 1), 'the gap is no smaller');
SELECT t.fails($$ SELECT herald.create_topic('*') $$, '22023', '\*', 'no topic has that name');

ALTER SYSTEM RESET herald.maintain;
SELECT pg_reload_conf() \g /dev/null
SELECT finish();
