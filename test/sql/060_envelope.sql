-- The envelope, byte for byte (G5): members, order, escapes, times, and the ref form.
\ir helpers.psql
SELECT plan(48);

CREATE FUNCTION pg_temp.envelope(other jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT herald.envelope(t.message(other))::text $$;
CREATE FUNCTION pg_temp.envelope(other jsonb, max_bytes int) RETURNS text LANGUAGE sql AS $$
    SELECT herald.envelope(t.message(other), max_bytes)::text $$;

SELECT is(pg_temp.envelope('{}'),
    '{"pos":1042,"id":"01980000-0000-7000-8000-00000000002a","topic":"a","type":"notification",'
    '"at":"2026-11-21T02:40:00.123456Z","content":"x"}', 'what is NULL is absent, and so is priority 0');
SELECT is(pg_temp.envelope('{"sender": "pm", "recipient": "42", "conversation": "c", "metadata": {"b": 1, "a": [null]},
        "reply_to": "01980000-0000-7000-8000-000000000001", "priority": 5, "ordering_key": "k", "workspace": "w",
        "idempotency_key": "i", "expires_at": "2026-11-21T02:41:00Z"}'),
    '{"pos":1042,"id":"01980000-0000-7000-8000-00000000002a","topic":"a","type":"notification","sender":"pm",'
    '"recipient":"42","conversation":"c","at":"2026-11-21T02:40:00.123456Z","content":"x","metadata":{"a": [null], "b": 1},'
    '"reply_to":"01980000-0000-7000-8000-000000000001","priority":5,"key":"k","expires_at":"2026-11-21T02:41:00.000000Z"}',
    'every member, in order; workspace and idempotency_key stay inside');
SELECT is(pg_temp.envelope('{"is_json": true, "content": "{\"n\": [1, null, \"é\"]}"}'),
    '{"pos":1042,"id":"01980000-0000-7000-8000-00000000002a","topic":"a","type":"notification",'
    '"at":"2026-11-21T02:40:00.123456Z","content":{"n": [1, null, "é"]}}', 'JSON content is the value itself');
SELECT is(pg_temp.envelope('{"content": ""}') LIKE '%,"content":""}', true, 'empty content is an empty string');
SELECT is(pg_temp.envelope('{"sender": "", "conversation": ""}') LIKE '%,"sender":"","conversation":"",%', true,
    'empty is not NULL');

-- Escapes: quotes, backslashes and control characters; nothing else. PostgreSQL's to_json has the same rule.
SELECT is(pg_temp.envelope(jsonb_build_object('content', chr(n))),
    replace(pg_temp.envelope('{}'), '"x"', CASE n WHEN 8 THEN '"\b"' WHEN 9 THEN '"\t"' WHEN 10 THEN '"\n"' WHEN 12 THEN '"\f"'
        WHEN 13 THEN '"\r"' WHEN 34 THEN '"\""' WHEN 92 THEN '"\\"' ELSE '"\u00' || lpad(to_hex(n), 2, '0') || '"' END),
    format('character %s', n)) FROM unnest(ARRAY[8, 9, 10, 12, 13, 34, 92, 1, 11, 31]) n;
SELECT is((SELECT string_agg(herald.envelope(t.message(jsonb_build_object('content', 'a' || chr(n) || 'z'))) ->> 'content', '' ORDER BY n)
           FROM generate_series(1, 31) n), (SELECT string_agg('a' || chr(n) || 'z', '' ORDER BY n) FROM generate_series(1, 31) n),
    'all 31 control characters come back');
SELECT is((SELECT count(*) FROM generate_series(1, 12287) n
           WHERE pg_temp.envelope(jsonb_build_object('content', chr(n))) <>
                 replace(pg_temp.envelope('{}'), '"x"', to_json(chr(n))::text)), 0::bigint,
    'U+0001 to U+2FFF: the same bytes as to_json');
SELECT is(pg_temp.envelope('{"content": "/<>&''\u007f\u2028\u2029😀 ü \ufeff"}'),
    replace(pg_temp.envelope('{}'), '"x"', E'"/<>&''\x7f\u2028\u2029😀 ü \ufeff"'), 'everything else is raw UTF-8');
SELECT ok(position('"' || member || E'":"q\\"b\\\\n\\n😀"' IN pg_temp.envelope(jsonb_build_object(field, E'q"b\\n\n😀'))) > 0,
    field || ' is escaped') FROM (VALUES ('sender', 'sender'), ('recipient', 'recipient'), ('conversation', 'conversation'),
    ('message_type', 'type'), ('ordering_key', 'key'), ('topic', 'topic')) f(field, member);

-- Times: UTC, six digits, whatever the session's settings.
SET TimeZone = 'Asia/Kathmandu';
SET DateStyle = 'German, DMY';
SELECT is(herald.envelope(t.message(jsonb_build_object('at', at))) ->> 'at', wanted, 'at ' || wanted)
FROM (VALUES ('2026-11-21T00:00:00+00', '2026-11-21T00:00:00.000000Z'), ('2026-11-21T02:40:00.1+05:45', '2026-11-20T20:55:00.100000Z'),
    ('1999-12-31T23:59:59.999999Z', '1999-12-31T23:59:59.999999Z'), ('2000-01-01T00:00:00Z', '2000-01-01T00:00:00.000000Z'),
    ('1969-12-31T23:59:59.000001Z', '1969-12-31T23:59:59.000001Z'), ('2024-02-29T12:00:00.000010Z', '2024-02-29T12:00:00.000010Z'),
    ('2100-03-01T00:00:00Z', '2100-03-01T00:00:00.000000Z'), ('0001-01-01T00:00:00Z', '0001-01-01T00:00:00.000000Z'),
    ('9999-12-31T23:59:59.999999Z', '9999-12-31T23:59:59.999999Z')) c(at, wanted);
SELECT is((SELECT count(*) FROM generate_series(-30000, 90000, 7) d,
    LATERAL (SELECT timestamptz '2000-01-01 00:00:00.000123Z' + make_interval(days => d, secs => d)) x(at)
    WHERE herald.envelope(t.message(jsonb_build_object('at', at))) ->> 'at'
       <> to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')), 0::bigint, 'days from 1917 to 2246');
SET extra_float_digits = -10;
SET standard_conforming_strings = off;
SELECT is(pg_temp.envelope('{"metadata": {"f": 0.1234567890123456789}}') LIKE '%"metadata":{"f": 0.1234567890123456789}}', true,
    'numbers in metadata keep every digit');
RESET TimeZone; RESET DateStyle; RESET extra_float_digits; RESET standard_conforming_strings;

-- The same from the view and from read.
SELECT herald.send_message('pm', 'dev', E'tab\t"quoted"', 'request', '{"a": 1}', 'run', ttl => '1 hour', priority => 9) AS id \gset
SELECT is((SELECT herald.envelope(m)::text FROM herald.messages m WHERE id = :'id'),
    (SELECT format('{"pos":%s,"id":"%s","topic":"agent:dev:inbox","type":"request","sender":"pm","recipient":"dev","conversation":"run",'
        '"at":"%s","content":"tab\t\"quoted\"","metadata":{"a": 1},"priority":9,"expires_at":"%s"}', pos, id,
        to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) FROM herald.messages WHERE id = :'id'),
    'a stored message');
SELECT is((SELECT herald.envelope(r)::text FROM herald.read('agent:dev:inbox') r),
    (SELECT herald.envelope(m)::text FROM herald.messages m WHERE id = :'id'), 'the same from read');
SELECT is((SELECT f.envelope FROM herald.feed('agent:dev:inbox', 0, 10, 100000, 100000) f WHERE topic IS NOT NULL),
    (SELECT herald.envelope(m)::text FROM herald.messages m WHERE id = :'id'), 'the same from feed');

-- The ref form: when the envelope is longer than max_bytes, and not before.
SELECT is(pg_temp.envelope('{}', octet_length(pg_temp.envelope('{}'))), pg_temp.envelope('{}'), 'exactly max_bytes: whole');
SELECT pg_temp.envelope(jsonb_build_object('content', repeat('é"', 5000), 'sender', 'pm', 'metadata', '{"m": 1}'::jsonb)) AS long \gset
SELECT is(pg_temp.envelope(jsonb_build_object('content', repeat('é"', 5000), 'sender', 'pm', 'metadata', '{"m": 1}'::jsonb),
    octet_length(:'long')), :'long', 'a long one at exactly max_bytes: whole');
SELECT is(pg_temp.envelope(jsonb_build_object('content', repeat('é"', 5000), 'sender', 'pm', 'metadata', '{"m": 1}'::jsonb),
    octet_length(:'long') - 1),
    '{"pos":1042,"id":"01980000-0000-7000-8000-00000000002a","topic":"a","type":"notification","sender":"pm",'
    '"at":"2026-11-21T02:40:00.123456Z","ref":{"bytes":15000,"checksum":"sha256:'
    || encode(sha256(convert_to(repeat('é"', 5000), 'UTF8')), 'hex')
    || '","href":"/messages/01980000-0000-7000-8000-00000000002a"},"metadata":{"m": 1}}',
    'one byte less: ref with the content''s bytes and SHA-256');
SELECT is((pg_temp.envelope(jsonb_build_object('content', '["' || repeat('j', 9000) || '"]', 'is_json', true), 7999)::json #>> '{ref,checksum}'),
    'sha256:' || encode(sha256(convert_to('["' || repeat('j', 9000) || '"]', 'UTF8')), 'hex'),
    'JSON content: the checksum of its text');
SELECT is((pg_temp.envelope(jsonb_build_object('content', 'x', 'metadata', jsonb_build_object('m', repeat('m', 9000))), 7999)::json
           ->> 'metadata'), NULL, 'metadata that is too long itself is left to the reference');
SELECT ok(octet_length(herald.envelope(t.message(jsonb_build_object('topic', repeat('😀', 200), 'content', repeat('x', 9000),
    'metadata', jsonb_build_object('m', repeat('m', 9000)), 'priority', 9, 'reply_to', gen_random_uuid(), 'expires_at', now())
    || (SELECT jsonb_object_agg(field, repeat(chr(1), 200)) FROM unnest(ARRAY['sender', 'recipient', 'conversation',
        'message_type', 'ordering_key']) field)), 7999)::text) <= 7999, 'the longest fields there are still fit a NOTIFY');

-- A row that no log could hold.
SELECT is(herald.envelope(NULL::herald.messages)::text, NULL, 'NULL gives NULL');
SELECT t.fails($$ SELECT herald.envelope(jsonb_populate_record(NULL::herald.messages, '{"content": "x"}')) $$, '22004', '1|pos',
    'a hand-made row without pos is refused');
SELECT t.fails($$ SELECT herald.envelope(t.message(), 0) $$, '22023', 'max_bytes.*0', 'max_bytes 0');
SELECT t.fails($$ SELECT herald.envelope(t.message(), -1) $$, '22023', 'max_bytes.*-1', 'max_bytes -1');

SELECT * FROM finish();
