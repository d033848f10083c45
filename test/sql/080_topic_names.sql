-- Topic names and patterns: what is a name, what is a pattern, what is neither.
BEGIN;
\ir helpers.psql
SELECT plan(143);

-- Names that are good.
SELECT is((t.row(herald.publish(name, '1'))).topic, name, 'name: ' || left(name, 20))
FROM unnest(ARRAY['a', ' ', 'a b', ':', 'a:b:c', '::', '-', 'Ünïcode', '主题', '😀', 'a"b', 'a''b', 'a/b', 'a%b', 'a_b', 'a.b',
    'a{b}', 'a$b', 'a,b', 'heraldic', 'Herald', 'HERALD:x', 'x:herald', ' herald', repeat('x', 200), repeat('é', 200),
    repeat('主', 200), repeat('😀', 200)]) name;
SELECT is((SELECT count(*) FROM herald.topics WHERE name IN ('a', ' ', 'Herald', repeat('😀', 200))), 4::bigint, 'as they are');

-- Names that are not: sent to, created, in a batch.
CREATE TEMP TABLE bad (name text, state text, message text, what text);
INSERT INTO bad VALUES
    ('', '22023', 'topic', 'empty'),
    (repeat('x', 201), '22023', '201', '201 characters'),
    (repeat('é', 201), '22023', '201', '201 characters of two bytes'),
    (repeat('😀', 201), '22023', '201', '201 characters of four bytes'),
    ('a*', '22023', 'a\*', 'star'), ('?a', '22023', '\?a', 'question mark'), ('a[b', '22023', 'a\[b', 'bracket'),
    ('a]b', '22023', 'a\]b', 'closing bracket'), (E'a\\b', '22023', 'a\\b', 'backslash'),
    ('herald', '42939', 'herald', 'reserved'), ('herald:', '42939', 'herald:', 'reserved prefix'),
    ('herald:a:b', '42939', 'herald:a:b', 'reserved, longer');
INSERT INTO bad SELECT 'a' || chr(n) || 'b', '22023', '(?i)' || lpad(to_hex(n), 2, '0'), 'control character ' || n
    FROM unnest(ARRAY[1, 7, 9, 10, 13, 27, 31, 127]) n;
SELECT t.fails(format('SELECT herald.publish(%L, ''1'')', name), state, message, 'publish: ' || what) FROM bad;
SELECT t.fails(format('SELECT herald.create_topic(%L)', name), state, message, 'create_topic: ' || what) FROM bad;
SELECT t.fails(format('INSERT INTO herald.message (topic, content) VALUES (%L, ''1'')', name), state, message, 'INSERT: ' || what) FROM bad;
SELECT is((SELECT count(*) FROM generate_series(1, 31) n
    WHERE (t.error_of(format('SELECT herald.publish(%L, ''1'')', 'x' || chr(n)))).state IS DISTINCT FROM '22023'), 0::bigint,
    'every control character is refused');

-- Patterns to read from: the same, with * and ? allowed.
SELECT lives_ok(format('SELECT herald.read(%L)', pattern), 'pattern: ' || left(pattern, 20))
FROM unnest(ARRAY['*', '?', 'a*', '**', 'a:?:*', repeat('*', 200), repeat('😀', 200)]) pattern;
CREATE TEMP TABLE bad_pattern AS SELECT * FROM bad
    WHERE state = '22023' AND what NOT IN ('star', 'question mark') AND (what !~ 'control' OR what ~ ' (1|127)$');
SELECT t.fails(format('SELECT herald.read(%L)', name), state, message, 'read: ' || what) FROM bad_pattern;
SELECT t.fails(format('SELECT herald.tail(%L)', name), state, message, 'tail: ' || what) FROM bad_pattern;
SELECT t.fails(format('SELECT herald.feed(%L, 0, 10, 1000, 1000)', name), state, message, 'feed: ' || what) FROM bad_pattern;
SELECT t.fails(format('SELECT herald.gap(%L, 0)', name), state, message, 'gap: ' || what) FROM bad_pattern;
SELECT t.fails(format('SELECT herald.tail_start(%L, 1)', name), state, message, 'tail_start: ' || what) FROM bad_pattern;
SELECT alike((t.error_of($$ SELECT herald.read('a[b') $$)).message, '%[%not known%', 'a character of other pattern languages is named');

SELECT * FROM finish();
ROLLBACK;
