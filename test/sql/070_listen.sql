-- channel() and what LISTEN hears: the envelope on the topic's channel, the doorbell on "herald".
-- A second connection (dblink) listens. Without the engine a round trip on it after each commit is
-- all the waiting there is: the signal is sent before the sender's commit returns. With the engine
-- the dispatcher announces some time after the commit, everything in its order; so once a message
-- that another connection sends now (topic "mark") is heard, all that came before it has been.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(39);

-- Channel names.
SELECT is(herald.channel('agent:42:inbox'), 'agent:42:inbox', 'a short topic is its own channel');
SELECT is(herald.channel(repeat('x', 63)), repeat('x', 63), '63 bytes: still itself');
SELECT is(herald.channel('x' || repeat('é', 31)), 'x' || repeat('é', 31), '63 bytes in 32 characters: itself');
SELECT isnt(herald.channel(repeat('é', 32)), repeat('é', 32), '64 bytes in 32 characters: another name');
SELECT ok(octet_length(herald.channel(repeat('😀', 200))) BETWEEN 1 AND 63, 'a long topic has a channel that LISTEN takes');
SELECT is((SELECT count(DISTINCT herald.channel(repeat('x', 190) || n)) FROM generate_series(1, 1000) n), 1000::bigint,
    'long topics that begin alike have channels of their own');
SELECT is((SELECT count(*) FROM generate_series(64, 200) n
    WHERE herald.channel(repeat('x', n)) = left(repeat('x', n), 63)
       OR octet_length(herald.channel(repeat('x', n))) NOT BETWEEN 1 AND 63), 0::bigint, 'none is just cut off');
SELECT ok(herald.channel(repeat('x', 100)) LIKE 'herald:%', 'no topic can have such a name');
SELECT is(herald.channel(repeat('x', 100)), herald.channel(repeat('x', 100)), 'always the same');
SELECT is(herald.channel(NULL), NULL, 'NULL gives NULL');
SELECT t.fails($$ SELECT herald.channel('') $$, '22023', 'topic', 'no channel for an empty name');
SELECT t.fails($$ SELECT herald.channel('a*') $$, '22023', 'a\*', 'no channel for a pattern');
SELECT t.fails($$ SELECT herald.channel(repeat('x', 201)) $$, '22023', '201', 'no channel for 201 characters');

-- The listener.
SELECT dblink_connect('ear', t.conninfo()), dblink_connect('mouth', t.conninfo()) \g /dev/null
CREATE TEMP TABLE heard (n serial, channel text, payload text);
CREATE FUNCTION t.listen() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM dblink('ear', 'SELECT 1') AS x(n int);
    INSERT INTO heard (channel, payload) SELECT notify_name, extra FROM dblink_get_notify('ear');
END $$;
CREATE FUNCTION t.wait(until text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    give_up timestamptz := clock_timestamp() + interval '30 seconds';
    done boolean;
BEGIN
    LOOP
        EXECUTE until INTO done;
        EXIT WHEN done;
        PERFORM t.listen();
        IF clock_timestamp() > give_up THEN RAISE 'waited in vain until %', until; END IF;
    END LOOP;
END $$;
-- Channels of what was heard since the last call; the table "heard" has it.
CREATE FUNCTION t.hear() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    mark bigint;
BEGIN
    DELETE FROM heard;
    IF NOT t.engine() THEN
        PERFORM t.listen();
    ELSE
        -- First this, so that the mark doesn't share the doorbell of what came before it.
        PERFORM t.wait('SELECT announced_to >= horizon FROM herald.engine');
        PERFORM FROM dblink('mouth', $sql$ SELECT herald.send_message('t', NULL, '', topic => 'mark') $sql$) AS x(id uuid);
        SELECT max(pos) INTO mark FROM herald.messages WHERE topic = 'mark';
        PERFORM t.wait(format($sql$ SELECT EXISTS (SELECT FROM heard WHERE channel = 'herald'
            AND CASE WHEN payload ~ '^[0-9]+$' THEN payload::bigint >= %s END) $sql$, mark));
        DELETE FROM heard WHERE n >= (SELECT min(n) FROM heard WHERE channel = 'mark');
    END IF;
    RETURN coalesce((SELECT string_agg(channel, ',' ORDER BY n) FROM heard), '');
END $$;
-- The same after something that must not be heard. With the engine the doorbell may say that the
-- positions that were given up are decided.
CREATE FUNCTION t.silence() RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN t.engine() THEN array_to_string(array_remove(string_to_array(h, ','), 'herald'), ',') ELSE h END
    FROM t.hear() h $$;
-- Whether the doorbell says the position: this one, or with the engine, one from which there is no
-- message down to it.
CREATE FUNCTION t.rings_for(at bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT CASE WHEN t.engine() THEN payload::bigint >= at ELSE payload::bigint = at END
    FROM heard WHERE channel = 'herald' $$;
CREATE FUNCTION t.envelope(message uuid) RETURNS text LANGUAGE sql AS $$
    SELECT herald.envelope(m)::text FROM herald.messages m WHERE m.id = message $$;
SELECT dblink_exec('ear', 'LISTEN a; LISTEN "Mixed Case"; LISTEN herald; LISTEN mark') \g /dev/null
SELECT format('LISTEN %I', herald.channel(repeat('ü', 200))) AS listen \gset
SELECT dblink_exec('ear', :'listen') \g /dev/null
SELECT t.hear() \g /dev/null

SELECT herald.send_message('pm', NULL, E'first "é"\n', topic => 'a') AS id \gset
SELECT is(t.hear(), 'a,herald', 'a message: its channel, then the doorbell');
SELECT is((SELECT payload FROM heard WHERE channel = 'a'), t.envelope(:'id'), 'the payload is the envelope (G5)');
SELECT ok(t.rings_for((SELECT pos FROM herald.messages WHERE id = :'id')), 'the doorbell says the position');

BEGIN;
SELECT herald.send_message('pm', NULL, n::text, topic => CASE n % 2 WHEN 0 THEN 'a' ELSE 'Mixed Case' END)
FROM generate_series(1, 5) n \g /dev/null
SELECT is(t.silence(), '', 'nothing is heard before the commit (G1)');
COMMIT;
SELECT is(t.hear(), 'Mixed Case,a,Mixed Case,a,Mixed Case,herald', 'a transaction: each message in order, one doorbell');
SELECT is((SELECT string_agg(payload::json ->> 'content', ',' ORDER BY n) FROM heard WHERE channel <> 'herald'), '1,2,3,4,5',
    'the payloads in order');
SELECT ok(t.rings_for((SELECT max(pos) FROM herald.messages WHERE topic <> 'mark')), 'the doorbell says the last position');

BEGIN;
SELECT herald.send_message('pm', NULL, 'never', topic => 'a') \g /dev/null
ROLLBACK;
SELECT is(t.silence(), '', 'a rollback is silent (G1)');
BEGIN;
SELECT herald.send_message('pm', NULL, 'kept', topic => 'a') \g /dev/null
SAVEPOINT s;
SELECT herald.send_message('pm', NULL, 'undone', topic => 'a') \g /dev/null
ROLLBACK TO s;
COMMIT;
SELECT is(t.hear(), 'a,herald', 'a savepoint that was undone is silent');
SELECT is((SELECT payload::json ->> 'content' FROM heard WHERE channel = 'a'), 'kept', 'the rest is heard');

SELECT herald.send_batch('[{"sender": "s", "content": "1", "topic": "a"}, {"sender": "s", "content": "1", "topic": "a"}]') \g /dev/null
SELECT is(t.hear(), 'a,a,herald', 'equal messages of a batch are all heard');

SELECT herald.send_message('pm', NULL, 'long name', topic => repeat('ü', 200)) AS id \gset
SELECT is(t.hear(), herald.channel(repeat('ü', 200)) || ',herald', 'a long topic is heard on its channel');
SELECT is((SELECT payload FROM heard LIMIT 1), t.envelope(:'id'), 'with the whole envelope');

-- Plain INSERT and COPY are announced like a send.
INSERT INTO herald.message (topic, sender, content) VALUES ('a', 'sql', 'inserted'), ('a', 'sql', 'inserted too');
SELECT is(t.hear(), 'a,a,herald', 'INSERT is announced');
SELECT is((SELECT payload FROM heard LIMIT 1), (SELECT herald.envelope(m)::text FROM herald.messages m WHERE content = 'inserted'),
    'with its envelope');
COPY herald.message (topic, content) FROM STDIN;
a	copied
\.
SELECT is(t.hear(), 'a,herald', 'COPY is announced');
SELECT is((SELECT payload FROM heard LIMIT 1), (SELECT herald.envelope(m)::text FROM herald.messages m WHERE content = 'copied'),
    'with its envelope');

-- The limit of NOTIFY: under 8000 bytes whole, from 8000 on by reference.
SELECT t.go_on_above(2000000) \g /dev/null
SELECT 7999 - octet_length(t.envelope(herald.send_message('pm', NULL, '', topic => 'a'))) AS room \gset
SELECT t.hear() \g /dev/null
SELECT herald.send_message('pm', NULL, repeat('x', :room), topic => 'a') AS id \gset
SELECT is(t.hear(), 'a,herald', 'a message of 7,999 bytes');
SELECT is((SELECT octet_length(payload) FROM heard WHERE channel = 'a'), 7999, 'is heard whole');
SELECT herald.send_message('pm', NULL, repeat('x', :room + 1), topic => 'a') AS id \gset
SELECT is(t.hear(), 'a,herald', 'one of 8,000 bytes');
SELECT is((SELECT payload::json #>> '{ref,bytes}' FROM heard WHERE channel = 'a'), (:room + 1)::text, 'is heard by reference');
SELECT is((SELECT payload FROM heard WHERE channel = 'a'),
    (SELECT herald.envelope(m, 7999)::text FROM herald.messages m WHERE id = :'id'), 'as envelope(m, 7999) writes it');
SELECT herald.publish('a', to_jsonb(repeat('é', 3000000))) \g /dev/null
SELECT is(t.hear(), 'a,herald', 'six megabytes hurt nobody');

-- What stores nothing rings nothing; a dropped topic makes notifiers forget.
SELECT herald.send_message('pm', NULL, 'once', topic => 'a', idempotency_key => 'k') \g /dev/null
SELECT t.hear() \g /dev/null
SELECT herald.send_message('pm', NULL, 'once', topic => 'a', idempotency_key => 'k') \g /dev/null
SELECT is(t.hear(), '', 'a repeated idempotency key is silent');
SELECT herald.drop_topic('a') \g /dev/null
SELECT is(t.hear(), 'herald', 'drop_topic rings the doorbell');
SELECT is((SELECT payload FROM heard), 'reset', 'which says reset');

SELECT dblink_disconnect('ear'), dblink_disconnect('mouth') \g /dev/null
SELECT * FROM finish();
