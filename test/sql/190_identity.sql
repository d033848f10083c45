-- Message ids: UUID version 7 (RFC 9562), which carry the time of the message.
\ir helpers.psql
SELECT plan(15);

CREATE FUNCTION t.milliseconds(id uuid) RETURNS bigint LANGUAGE sql AS $$
    SELECT ('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint $$;

SELECT herald.send_message('s', NULL, n::text, topic => 'u') FROM generate_series(1, 500) n \g /dev/null
SELECT herald.publish_batch('u', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n)) \g /dev/null
INSERT INTO herald.message (topic, content) SELECT 'u', n::text FROM generate_series(1, 500) n;
SELECT is((SELECT count(*) FROM herald.messages WHERE topic = 'u'), 1500::bigint, '1,500 messages in three ways');
SELECT is((SELECT count(*) FROM herald.messages WHERE id::text !~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'),
    0::bigint, 'version 7, variant 10');
SELECT is((SELECT count(DISTINCT id) FROM herald.messages), 1500::bigint, 'all different');
SELECT is((SELECT count(*) FROM herald.messages
           WHERE abs(t.milliseconds(id) - (extract(epoch FROM at) * 1000)::bigint) > 1000), 0::bigint, 'the time is that of the message');
SELECT is((SELECT count(*) FROM (SELECT t.milliseconds(id) - lag(t.milliseconds(id)) OVER (ORDER BY pos) AS step
           FROM herald.messages) x WHERE step < 0), 0::bigint, 'milliseconds never go back with rising positions');
SELECT is((SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY pos) AS step FROM herald.messages WHERE content <> '') x
           WHERE step < '0'), 0::bigint, 'nor does at');
SELECT cmp_ok((SELECT count(DISTINCT right(id::text, 15)) FROM herald.messages), '>', 1490::bigint, 'the rest is random');
SELECT is((SELECT count(DISTINCT substr(id::text, 20, 4)) > 100 FROM herald.messages), true, 'in every part');

-- at is the time of the send, not of its transaction.
BEGIN;
SELECT herald.send_message('s', NULL, 'one', topic => 'v') \g /dev/null
SELECT clock_timestamp() AS between \gset
SELECT herald.send_message('s', NULL, 'two', topic => 'v') \g /dev/null
COMMIT;
SELECT ok((SELECT at < :'between' FROM herald.messages WHERE content = 'one' AND topic = 'v'), 'the first was sent before');
SELECT ok((SELECT at > :'between' FROM herald.messages WHERE content = 'two' AND topic = 'v'), 'the second after');
SELECT ok((SELECT bool_and(at <= clock_timestamp()) FROM herald.messages), 'none in the future');

-- Lookups by id do not depend on the clock that made it.
INSERT INTO herald.message (id, topic, content) VALUES ('00000000-0000-7000-8000-000000000000', 'w', 'from 1970'),
    ('ffffffff-ffff-7fff-bfff-ffffffffffff', 'w', 'from 10889'), ('f81d4fae-7dec-11d0-a765-00a0c91e6bf6', 'w', 'version 1');
SELECT is((SELECT content FROM herald.message_by_id('00000000-0000-7000-8000-000000000000')), 'from 1970', 'an id of long ago');
SELECT is((SELECT content FROM herald.message_by_id('ffffffff-ffff-7fff-bfff-ffffffffffff')), 'from 10889', 'an id of the far future');
SELECT is((SELECT content FROM herald.message_by_id('f81d4fae-7dec-11d0-a765-00a0c91e6bf6')), 'version 1', 'an id of another version');
SELECT is((SELECT count(*) FROM herald.messages m, herald.message_by_id(m.id) f WHERE f = m), (SELECT count(*) FROM herald.messages),
    'every message is found by its id');

SELECT * FROM finish();
