-- What the notifier reads: feed, gap and tail_start.
\ir helpers.psql
SELECT plan(57);

-- Rows of a page as text: content of each, then where it is complete up to.
CREATE FUNCTION t.page(topics text, after bigint, max_rows int DEFAULT 100, max_bytes int DEFAULT 1000000,
                       max_frame int DEFAULT 1000000) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(CASE WHEN f.lost IS NOT NULL THEN format('(%s %s %s)', f.topic, f.pos, f.lost) WHEN f.topic IS NULL THEN '| ' || coalesce(h.content, f.pos::text) ELSE f.envelope::json ->> 'content' END, ' ' ORDER BY n)
    FROM (SELECT *, row_number() OVER () AS n FROM herald.feed(topics, after, max_rows, max_bytes, max_frame)) f
    LEFT JOIN herald.messages h ON h.pos = f.pos $$;
CREATE FUNCTION t.pos(content text) RETURNS bigint LANGUAGE sql AS $$
    SELECT max(pos) FROM herald.messages m WHERE m.content = $1 $$;

SELECT is(t.page(NULL, 0), '| ' || herald.horizon(), 'an empty log: only the closing row');
SELECT is(t.page('a*', 0), '| ' || herald.horizon(), 'with a pattern too');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('a', 0)), '(,)', 'no gap in an empty log');

SELECT herald.send_message('s', NULL, 'm' || n, topic => (ARRAY['f:a', 'f:b', 'g'])[n % 3 + 1])
FROM generate_series(1, 12) n \g /dev/null

SELECT is(t.page(NULL, 0), 'm1 m2 m3 m4 m5 m6 m7 m8 m9 m10 m11 m12 | m12', 'everything up to the horizon');
SELECT is(t.page('f:a', 0), 'm3 m6 m9 m12 | m12', 'one topic');
SELECT is(t.page('f:b', 0), 'm1 m4 m7 m10 | m12', 'complete up to the horizon, not only to the last row');
SELECT is(t.page('f:*', 0), 'm1 m3 m4 m6 m7 m9 m10 m12 | m12', 'a pattern');
SELECT is(t.page('none', 0), '| m12', 'no rows: complete up to the horizon');
SELECT is(t.page(NULL, t.pos('m10')), 'm11 m12 | m12', 'after is exclusive');
SELECT is(t.page(NULL, t.pos('m12')), '| m12', 'at the horizon');
SELECT is((SELECT pos FROM herald.feed(NULL, t.pos('m12') + 1000, 10, 1000, 1000)), t.pos('m12'),
    'above the horizon: the closing row says where the log really ends');
SELECT results_eq($$ SELECT f.pos, f.topic, f.envelope FROM herald.feed(NULL, 0, 100, 1000000, 1000000) f WHERE topic IS NOT NULL $$,
    $$ SELECT m.pos, m.topic COLLATE "default", herald.envelope(m)::text FROM herald.messages m ORDER BY pos $$, 'rows: pos, topic, envelope');
SELECT results_eq($$ SELECT f.topic, f.envelope, f.expires_us FROM herald.feed(NULL, 0, 100, 1000000, 1000000) f ORDER BY pos DESC, topic NULLS FIRST LIMIT 1 $$,
    $$ VALUES (NULL::text, NULL::text, NULL::bigint) $$, 'the closing row has only a position');

-- Pages cut by rows.
SELECT is(t.page(NULL, 0, 3), 'm1 m2 m3 | m3', 'cut after max_rows: complete up to the last row');
SELECT is(t.page('f:a', 0, 2), 'm3 m6 | m6', 'cut in a topic');
SELECT is(t.page('f:?', 0, 5), 'm1 m3 m4 m6 m7 | m7', 'cut in a pattern');
SELECT ok(t.page('f:a', 0, 4) = 'm3 m6 m9 m12 | m12', 'a page that is just full');
-- Pages cut by bytes: the row that reaches the limit is the last.
SELECT max(octet_length(herald.envelope(m)::text)) AS bytes FROM herald.messages m \gset
SELECT is(t.page(NULL, 0, 100, 1), 'm1 | m1', 'at least one row, whatever max_bytes');
SELECT ok((SELECT count(*) BETWEEN 3 AND 5 FROM herald.feed(NULL, 0, 100, :bytes * 3, 1000000)), 'about max_bytes a page');
-- Any paging gives the whole.
CREATE FUNCTION t.paged(topics text, max_rows int, max_bytes int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    at bigint := 0;
    upto bigint;
    got text := '';
    part text;
BEGIN
    LOOP
        SELECT string_agg(envelope::json ->> 'content' || ' ', '' ORDER BY pos) FILTER (WHERE topic IS NOT NULL),
               max(pos) FILTER (WHERE topic IS NULL)
        INTO part, upto FROM herald.feed(topics, at, max_rows, max_bytes, 1000000);
        IF upto < at THEN RAISE 'from % back to %', at, upto; END IF;
        EXIT WHEN part IS NULL;
        got := got || part;
        at := upto;
    END LOOP;
    RETURN got;
END $$;
SELECT is(t.paged(topics, max_rows, max_bytes), (SELECT string_agg(content || ' ', '' ORDER BY pos) FROM herald.messages
    WHERE herald.matches(topics, topic)), format('%s in pages of %s rows, %s bytes', topics, max_rows, max_bytes))
FROM (VALUES ('*', 1, 1000000), ('*', 5, 1000000), ('*', 100, 1), ('*', 100, 400), ('f:*', 1, 100), ('f:a', 3, 1000000)) c(topics, max_rows, max_bytes);

-- Long frames come by reference; expiry in Unix microseconds.
SELECT herald.send_message('s', NULL, repeat('x', 5000), topic => 'long', ttl => '1 hour') AS long \gset
SELECT is((SELECT envelope FROM herald.feed('long', 0, 10, 100000, 1000) WHERE topic IS NOT NULL),
    (SELECT herald.envelope(m, 1000)::text FROM herald.messages m WHERE id = :'long'), 'a frame over max_frame comes by reference');
SELECT is((SELECT envelope FROM herald.feed('long', 0, 10, 100000, 100000) WHERE topic IS NOT NULL),
    (SELECT herald.envelope(m)::text FROM herald.messages m WHERE id = :'long'), 'else whole');
SELECT is((SELECT expires_us FROM herald.feed('long', 0, 10, 100000, 100000) WHERE topic IS NOT NULL),
    (SELECT (extract(epoch FROM expires_at) * 1000000)::bigint FROM herald.messages WHERE id = :'long'), 'expires_us');
SELECT is((SELECT count(expires_us) FROM herald.feed('f:a', 0, 10, 100000, 100000)), 0::bigint, 'NULL without ttl');

-- tail_start: reading on from there gives exactly the last n.
SELECT is(t.contents(topics, herald.tail_start(topics, n)), (SELECT coalesce(string_agg(content, ',' ORDER BY pos), '') FROM (
    SELECT pos, content FROM herald.messages WHERE herald.matches(topics, topic) ORDER BY pos DESC LIMIT n) x),
    format('the last %s of %s', n, topics))
FROM (VALUES ('f:a', 1), ('f:a', 3), ('f:a', 4), ('f:a', 5), ('f:*', 3), ('*', 1), ('*', 13), ('*', 10000), ('none', 5)) c(topics, n);

-- gap: nothing removed, and a reader from another life of the log.
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('f:a', 0)), '(,)', 'nothing was removed');
SELECT is((SELECT count(*) FROM herald.gap('none', 0)), 1::bigint, 'always one row');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('f:a', herald.horizon())), '(,)', 'at the horizon there is no gap');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('f:a', herald.horizon() + 1)), format('(%s,reset)', herald.horizon()),
    'above the horizon: the log was reset');

-- lost: what is gone in the range of a page, told to who reads the whole log.
SELECT t.pos('m4') AS p4, t.pos('m7') AS p7, t.pos('m9') AS p9, herald.trim('f:b', t.pos('m8')), herald.trim('f:a', t.pos('m10')) \gset
SELECT is(t.page(NULL, 0, 2), 'm2 m5 | m5', 'none in the page''s range');
SELECT is(t.page(NULL, t.pos('m5'), 2), format('m8 m10 (f:a %s retention) (f:b %s retention) | m10', :p9, :p7), 'two topics');
SELECT is(t.page(NULL, :p7, 1), 'm8 | m8', 'after is exclusive');
SELECT is(t.page(NULL, :p7, 2), format('m8 m10 (f:a %s retention) | m10', :p9), 'what was lost before is not told again');
SELECT is(left(t.page('f:*', :p4), 9), 'm10 m12 |', 'who reads a pattern asks herald.gap');
INSERT INTO herald.topic_start (topic, start_pos, why) SELECT 'none:' || n, :p7 + 1, 'dropped' FROM generate_series(1, 1000) n;
SELECT is(t.page(NULL, :p7, 2), format('m8 m10 (* %s retention) | m10', :p9), 'of very many topics: one row for all');

-- Bad arguments.
SELECT t.fails($$ SELECT herald.feed(NULL, -1, 10, 10, 10) $$, '22023', 'after.*-1', 'feed: after -1');
SELECT t.fails($$ SELECT herald.feed(NULL, 0, 0, 10, 10) $$, '22023', 'max_rows.*0', 'feed: max_rows 0');
SELECT t.fails($$ SELECT herald.feed(NULL, 0, 10, 0, 10) $$, '22023', 'max_bytes.*0', 'feed: max_bytes 0');
SELECT t.fails($$ SELECT herald.feed(NULL, 0, 10, 10, 0) $$, '22023', 'max_frame.*0', 'feed: max_frame 0');
SELECT t.fails($$ SELECT herald.gap('a', -1) $$, '22023', 'after.*-1', 'gap: after -1');
SELECT t.fails($$ SELECT herald.gap(NULL, 0) $$, '22004', 'topics', 'gap: NULL topics');
SELECT t.fails($$ SELECT herald.tail_start(NULL, 1) $$, '22004', 'topics', 'tail_start: NULL topics');
SELECT t.fails($$ SELECT herald.tail_start('a', 0) $$, '22023', 'last.*0', 'tail_start: last 0');
SELECT t.fails($$ SELECT herald.tail_start('a', 10001) $$, '22023', 'last.*10001', 'tail_start: last 10001');

SELECT * FROM finish();
