-- The log: one table for all messages, in the order of their positions.
\echo Use "CREATE EXTENSION pg_herald" to load this file. \quit

DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'pg_herald needs a database in UTF8, and this one is in %',
            pg_catalog.current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0';
    END IF;
END
$$;

CREATE SCHEMA herald;
COMMENT ON SCHEMA herald IS 'pg_herald: a message bus inside PostgreSQL';

-- Below 2^53, so that JavaScript holds every position exactly.
CREATE SEQUENCE herald.message_pos_seq AS bigint MAXVALUE 9007199254740991;
COMMENT ON SEQUENCE herald.message_pos_seq IS 'The counter of positions';

CREATE FUNCTION herald.next_position() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_next_position';
COMMENT ON FUNCTION herald.next_position() IS
    'The next position in the order of all messages; keeps others from sending until this transaction ends. The default of herald.message.pos';

CREATE FUNCTION herald.uuid_v7() RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_uuid_v7';
COMMENT ON FUNCTION herald.uuid_v7() IS 'A new UUID version 7 (RFC 9562)';

-- The column order is that of enum Column in extension/row.h.
CREATE TABLE herald.message (
    pos bigint NOT NULL DEFAULT herald.next_position(),
    id uuid NOT NULL DEFAULT herald.uuid_v7(),
    topic text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sender text,
    recipient text,
    message_type text NOT NULL DEFAULT 'notification',
    content text NOT NULL,
    metadata jsonb,
    conversation text COLLATE "C",
    reply_to uuid,
    priority smallint NOT NULL DEFAULT 0,
    ordering_key text COLLATE "C",
    expires_at timestamptz,
    workspace text,
    idempotency_key text COLLATE "C",
    is_json boolean NOT NULL DEFAULT false,
    PRIMARY KEY (pos)
) PARTITION BY RANGE (pos);
COMMENT ON TABLE herald.message IS
    'The log. Rows may be added by plain INSERT or COPY without pos; read it through herald.messages';
COMMENT ON COLUMN herald.message.pos IS 'Position in the one order of all messages';
COMMENT ON COLUMN herald.message.id IS 'UUID version 7';
COMMENT ON COLUMN herald.message.at IS 'When it was sent';
COMMENT ON COLUMN herald.message.content IS 'Text, or JSON text if is_json';
COMMENT ON COLUMN herald.message.is_json IS 'content is a JSON value (publish), not plain text (send_message)';

CREATE INDEX message_topic_pos_idx ON herald.message (topic, pos);
CREATE INDEX message_id_idx ON herald.message (id);
CREATE INDEX message_conversation_idx ON herald.message (conversation, pos)
    WHERE conversation IS NOT NULL;
CREATE INDEX message_idempotency_key_idx ON herald.message (idempotency_key, topic)
    WHERE idempotency_key IS NOT NULL;

CREATE FUNCTION herald.log_inserted() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_log_inserted';
COMMENT ON FUNCTION herald.log_inserted() IS 'Checks and announces rows that enter the log by INSERT or COPY';

CREATE TRIGGER log_inserted AFTER INSERT ON herald.message
    FOR EACH ROW EXECUTE FUNCTION herald.log_inserted();

CREATE TABLE herald.message_0 PARTITION OF herald.message FOR VALUES FROM (0) TO (1000000000);
CREATE TABLE herald.message_1 PARTITION OF herald.message FOR VALUES FROM (1000000000) TO (2000000000);
COMMENT ON TABLE herald.message_0 IS 'A segment of the log';
COMMENT ON TABLE herald.message_1 IS 'A segment of the log';

CREATE FUNCTION herald.make_segment(pos bigint) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'herald_make_segment';
COMMENT ON FUNCTION herald.make_segment(bigint) IS 'Makes the segment that this position falls into, if it is missing';

CREATE FUNCTION herald.segment_width() RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'herald_segment_width';
COMMENT ON FUNCTION herald.segment_width() IS 'How many positions a segment has';

CREATE FUNCTION herald.take_order() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_take_order';
COMMENT ON FUNCTION herald.take_order() IS
    'Waits until no other open transaction has sent, and keeps others from sending until this one ends';

CREATE FUNCTION herald.begin_segment_at_commit(first bigint) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'herald_begin_segment_at_commit';
COMMENT ON FUNCTION herald.begin_segment_at_commit(bigint) IS
    'Makes the segment that begins here, and lets positions go on from it when this transaction commits';

CREATE FUNCTION herald.start_segment() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first bigint;
BEGIN
    PERFORM herald.take_order();
    SELECT (s.last_value / herald.segment_width() + 1) * herald.segment_width()
      INTO first FROM herald.message_pos_seq AS s;
    PERFORM herald.begin_segment_at_commit(first);
    PERFORM herald.make_segment(first + herald.segment_width());
    RETURN first;
END
$$;
COMMENT ON FUNCTION herald.start_segment() IS
    'Lets the first message after this transaction begin a new segment of the log; returns its first position';

-- What pg_dump sees. The segments belong to the extension, so it does not dump them table by table;
-- this table, always empty, stands for all of them: its filter reads the log, and its trigger puts
-- what is restored back into the log at the old positions.
CREATE TABLE herald.restore (LIKE herald.message);
COMMENT ON TABLE herald.restore IS 'Where pg_restore puts messages; always empty';

CREATE FUNCTION herald.log_restored() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_log_restored';
COMMENT ON FUNCTION herald.log_restored() IS 'Puts a dumped message back into the log at its position';

CREATE TRIGGER log_restored BEFORE INSERT ON herald.restore
    FOR EACH ROW EXECUTE FUNCTION herald.log_restored();
ALTER TABLE herald.restore ENABLE ALWAYS TRIGGER log_restored;

SELECT pg_catalog.pg_extension_config_dump('herald.message_pos_seq', '');
SELECT pg_catalog.pg_extension_config_dump('herald.restore', $$WHERE false UNION ALL
    SELECT pos, id, topic, at, sender, recipient, message_type, content, metadata, conversation,
           reply_to, priority, ordering_key, expires_at, workspace, idempotency_key, is_json
    FROM herald.message ORDER BY 1$$);
-- Topics. A topic comes into being with its first message; nothing is written for it then, so two
-- sends to the same new topic never wait for each other. What is known of topics:
--   herald.topic         those that create_topic described
--   herald.topic_start   those that lost messages: where they begin now
--   herald.topic_count   counters of the log up to herald.state.folded_to; the few messages above
--                        are counted when the view herald.topics is read

CREATE TABLE herald.topic (
    name text COLLATE "C" PRIMARY KEY,
    description text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE herald.topic IS 'Topics made by create_topic';

CREATE TABLE herald.topic_start (
    topic text COLLATE "C" PRIMARY KEY,
    start_pos bigint NOT NULL,
    why text NOT NULL CHECK (why IN ('dropped', 'retention'))
);
COMMENT ON TABLE herald.topic_start IS 'Topics whose messages up to start_pos are no longer readable';

CREATE TABLE herald.topic_count (
    topic text COLLATE "C" PRIMARY KEY,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_pos bigint NOT NULL,
    last_at timestamptz NOT NULL
);
COMMENT ON TABLE herald.topic_count IS 'Counters per topic, of the log up to herald.state.folded_to';

CREATE TABLE herald.state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    folded_to bigint NOT NULL
);
COMMENT ON TABLE herald.state IS 'How far the log is folded into herald.topic_count; no row: not yet';

SELECT pg_catalog.pg_extension_config_dump('herald.topic', '');
SELECT pg_catalog.pg_extension_config_dump('herald.topic_start', '');
SELECT pg_catalog.pg_extension_config_dump('herald.topic_count', '');
SELECT pg_catalog.pg_extension_config_dump('herald.state', '');

CREATE VIEW herald.messages AS
SELECT m.pos, m.id, m.topic, m.at, m.sender, m.recipient, m.message_type, m.content, m.metadata,
       m.conversation, m.reply_to, m.priority, m.ordering_key, m.expires_at, m.workspace,
       m.idempotency_key, m.is_json
  FROM herald.message AS m
 WHERE (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
   AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                    WHERE s.topic = m.topic AND s.start_pos >= m.pos);
COMMENT ON VIEW herald.messages IS
    'All readable messages: neither expired nor of a dropped topic. Page with herald.read, which never skips';

CREATE VIEW herald.topics AS
WITH tail AS (
    SELECT m.topic, count(*) AS messages, sum(octet_length(m.content))::bigint AS bytes,
           min(m.at) AS first_at, max(m.pos) AS last_pos, max(m.at) AS last_at
      FROM herald.message AS m
     WHERE m.pos > coalesce((SELECT folded_to FROM herald.state), 0)
       AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                        WHERE s.topic = m.topic AND s.start_pos >= m.pos)
     GROUP BY m.topic
), counted AS (
    SELECT topic, sum(messages)::bigint AS messages, sum(bytes)::bigint AS bytes,
           min(first_at) AS first_at, max(last_pos) AS last_pos, max(last_at) AS last_at
      FROM (SELECT topic, messages, bytes, first_at, last_pos, last_at FROM herald.topic_count
            UNION ALL
            SELECT topic, messages, bytes, first_at, last_pos, last_at FROM tail) AS parts
     GROUP BY topic
)
SELECT coalesce(t.name, c.topic) AS name, t.description,
       coalesce(t.created_at, c.first_at) AS created_at,
       coalesce(c.messages, 0) AS messages, coalesce(c.bytes, 0) AS bytes, c.last_pos, c.last_at
  FROM herald.topic AS t
  FULL JOIN counted AS c ON c.topic = t.name;
COMMENT ON VIEW herald.topics IS
    'Topics in use or made by create_topic: stored messages, bytes of their contents, the last one';

CREATE FUNCTION herald.require_topic(topic text) RETURNS void
    LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'herald_require_topic';
COMMENT ON FUNCTION herald.require_topic(text) IS 'Error unless messages can be sent to a topic of this name';

CREATE FUNCTION herald.announce_reset() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_announce_reset';
COMMENT ON FUNCTION herald.announce_reset() IS 'Tells notifiers to forget the messages they keep in memory';

CREATE FUNCTION herald.last_position(topic text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_last_position';
COMMENT ON FUNCTION herald.last_position(text) IS
    'The position of the last stored message of a topic, also an expired or dropped one; 0 if there is none';

CREATE FUNCTION herald.fold() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    done bigint := coalesce((SELECT s.folded_to FROM herald.state AS s), 0);
    upto bigint := (SELECT max(m.pos) FROM herald.message AS m);
BEGIN
    IF upto IS NULL OR upto <= done THEN
        RETURN;
    END IF;
    INSERT INTO herald.topic_count AS c (topic, messages, bytes, first_at, last_pos, last_at)
    SELECT m.topic, count(*), sum(octet_length(m.content)), min(m.at), max(m.pos), max(m.at)
      FROM herald.message AS m
     WHERE m.pos > done AND m.pos <= upto
       AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                        WHERE s.topic = m.topic AND s.start_pos >= m.pos)
     GROUP BY m.topic
        ON CONFLICT (topic) DO UPDATE
       SET messages = c.messages + excluded.messages, bytes = c.bytes + excluded.bytes,
           last_pos = excluded.last_pos, last_at = excluded.last_at;
    INSERT INTO herald.state AS s (folded_to) VALUES (upto)
        ON CONFLICT (singleton) DO UPDATE SET folded_to = excluded.folded_to;
END
$$;
COMMENT ON FUNCTION herald.fold() IS
    'Adds the log above herald.state.folded_to to the counters; the caller holds herald.take_order()';

CREATE FUNCTION herald.create_topic(
    name text, description text DEFAULT NULL, if_not_exists boolean DEFAULT false
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    in_use boolean;
BEGIN
    PERFORM herald.require_topic(create_topic.name);
    in_use := EXISTS (SELECT FROM herald.messages AS m WHERE m.topic = create_topic.name);
    INSERT INTO herald.topic (name, description)
    VALUES (create_topic.name, create_topic.description)
        ON CONFLICT DO NOTHING;
    IF (in_use OR NOT FOUND) AND NOT coalesce(if_not_exists, false) THEN
        RAISE EXCEPTION 'topic "%" exists', create_topic.name
            USING ERRCODE = 'duplicate_object', HINT = 'Give if_not_exists => true if that is fine.';
    END IF;
END
$$;
COMMENT ON FUNCTION herald.create_topic(text, text, boolean) IS
    'Describes a topic before its first message. Not needed for sending: topics are made on first use';

CREATE FUNCTION herald.drop_topic(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    described boolean;
    last_pos bigint;
BEGIN
    PERFORM herald.require_topic(drop_topic.name);
    PERFORM herald.take_order();
    DELETE FROM herald.topic AS t WHERE t.name = drop_topic.name;
    described := FOUND;
    last_pos := herald.last_position(drop_topic.name);
    IF last_pos > coalesce((SELECT s.start_pos FROM herald.topic_start AS s
                             WHERE s.topic = drop_topic.name), 0) THEN
        INSERT INTO herald.topic_start AS s (topic, start_pos, why)
        VALUES (drop_topic.name, last_pos, 'dropped')
            ON CONFLICT (topic) DO UPDATE SET start_pos = excluded.start_pos, why = excluded.why;
        DELETE FROM herald.topic_count AS c WHERE c.topic = drop_topic.name;
        PERFORM herald.announce_reset();
    ELSIF NOT described THEN
        RAISE EXCEPTION 'topic "%" does not exist', drop_topic.name
            USING ERRCODE = 'undefined_object', HINT = 'herald.topics lists the topics there are.';
    END IF;
END
$$;
COMMENT ON FUNCTION herald.drop_topic(text) IS
    'Makes the messages of a topic unreadable, and forgets its description. Readers are told of the gap; later messages make the topic anew';

CREATE FUNCTION herald.maintain() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.take_order();
    PERFORM herald.fold();
    PERFORM herald.make_segment((s.last_value / herald.segment_width() + 1) * herald.segment_width())
       FROM herald.message_pos_seq AS s;
END
$$;
COMMENT ON FUNCTION herald.maintain() IS
    'Does by hand what sends do now and then: counts the topics up to now and makes the next segment';
-- Sending.

CREATE FUNCTION herald.send_message(
    sender text, recipient text, content text,
    message_type text DEFAULT 'notification', metadata jsonb DEFAULT NULL,
    conversation text DEFAULT NULL, topic text DEFAULT NULL, workspace text DEFAULT NULL,
    reply_to uuid DEFAULT NULL, priority int DEFAULT 0, ordering_key text DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ttl interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_send_message';
COMMENT ON FUNCTION herald.send_message(text, text, text, text, jsonb, text, text, text, uuid, int, text, timestamptz, interval, text) IS
    'Sends a text in the caller''s transaction; returns the message''s id. Goes to topic; else agent:{recipient}:inbox; else workspace:{workspace}; else broadcast';

CREATE FUNCTION herald.publish(
    topic text, payload jsonb,
    message_type text DEFAULT 'notification', metadata jsonb DEFAULT NULL,
    conversation text DEFAULT NULL, reply_to uuid DEFAULT NULL, priority int DEFAULT 0,
    ordering_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL, idempotency_key text DEFAULT NULL,
    sender text DEFAULT NULL, recipient text DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_publish';
COMMENT ON FUNCTION herald.publish(text, jsonb, text, jsonb, text, uuid, int, text, timestamptz, interval, text, text, text) IS
    'Publishes any JSON value to a topic in the caller''s transaction; returns the message''s id';

CREATE FUNCTION herald.send_batch(messages jsonb) RETURNS SETOF uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_send_batch';
COMMENT ON FUNCTION herald.send_batch(jsonb) IS
    'Sends up to 10,000 messages: an array of objects with the arguments of send_message (or payload instead of content). Returns their ids in order';

CREATE FUNCTION herald.send_object(message jsonb) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_send_object';
COMMENT ON FUNCTION herald.send_object(jsonb) IS
    'Sends one message given as an object, like an element of send_batch; what notifiers use';

CREATE FUNCTION herald.publish_batch(
    topic text, payloads jsonb[], message_type text DEFAULT 'notification',
    conversation text DEFAULT NULL, sender text DEFAULT NULL
) RETURNS SETOF uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_publish_batch';
COMMENT ON FUNCTION herald.publish_batch(text, jsonb[], text, text, text) IS
    'Publishes up to 10,000 JSON values to a topic; returns the messages'' ids in order';

CREATE FUNCTION herald.reply(
    message uuid, content text, sender text DEFAULT NULL,
    message_type text DEFAULT 'response', metadata jsonb DEFAULT NULL, priority int DEFAULT 0,
    ordering_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL, idempotency_key text DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_reply';
COMMENT ON FUNCTION herald.reply(uuid, text, text, text, jsonb, int, text, timestamptz, interval, text) IS
    'Answers a message: to its sender''s inbox, in its conversation, with reply_to set. The sender is by default the recipient of that message';

CREATE FUNCTION herald.cancel(message uuid) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_cancel';
COMMENT ON FUNCTION herald.cancel(uuid) IS 'Cancels a message whose deliver_at has not come (needs the engine)';
-- Reading.

CREATE FUNCTION herald.matches(pattern text, topic text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'herald_matches';
COMMENT ON FUNCTION herald.matches(text, text) IS
    'Whether a pattern matches a topic: * is any run of characters, ? is one character';

CREATE FUNCTION herald.horizon() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_horizon';
COMMENT ON FUNCTION herald.horizon() IS
    'Every message up to this position is decided: nothing new will ever appear at or below it';

CREATE FUNCTION herald.read(topics text, after bigint DEFAULT 0, max int DEFAULT 100)
    RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'herald_read';
COMMENT ON FUNCTION herald.read(text, bigint, int) IS
    'The next messages above a position, of a topic or a pattern, ascending. Safe to page with: after = the last pos seen';

CREATE FUNCTION herald.tail(topics text, last int DEFAULT 10) RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'herald_tail';
COMMENT ON FUNCTION herald.tail(text, int) IS 'The last messages of a topic or a pattern, ascending';

CREATE FUNCTION herald.conversation(conversation text) RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_conversation';
COMMENT ON FUNCTION herald.conversation(text) IS 'All messages of a conversation, ascending';

CREATE FUNCTION herald.message_by_id(id uuid) RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'herald_message_by_id';
COMMENT ON FUNCTION herald.message_by_id(uuid) IS 'The message with this id, if it is readable';

CREATE FUNCTION herald.wait_for(topics text, after bigint, timeout interval)
    RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_wait_for';
COMMENT ON FUNCTION herald.wait_for(text, bigint, interval) IS
    'Blocks until there is a message above a position (needs the engine)';

CREATE FUNCTION herald.envelope(message herald.messages) RETURNS json
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'herald_envelope';
COMMENT ON FUNCTION herald.envelope(herald.messages) IS
    'The JSON of a message, byte for byte as LISTEN, WebSocket and HTTP carry it';

CREATE FUNCTION herald.envelope(message herald.messages, max_bytes int) RETURNS json
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'herald_envelope_limited';
COMMENT ON FUNCTION herald.envelope(herald.messages, int) IS
    'The envelope, with a reference instead of the content if it would be longer than this';

CREATE FUNCTION herald.channel(topic text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'herald_channel';
COMMENT ON FUNCTION herald.channel(text) IS
    'The channel to LISTEN on for a topic: the topic itself, or a hash of it if it is over 63 bytes';

-- For notifiers.

CREATE FUNCTION herald.feed(topics text, after bigint, max_rows int, max_bytes int, max_frame int)
    RETURNS TABLE (pos bigint, topic text, expires_us bigint, envelope text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_feed';
COMMENT ON FUNCTION herald.feed(text, bigint, int, int, int) IS
    'A page of envelopes above a position (topics NULL: all). The last row has no topic: its pos says how far the page is complete. expires_us: Unix microseconds';

CREATE FUNCTION herald.gap(topics text, after bigint, OUT to_pos bigint, OUT why text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_gap';
COMMENT ON FUNCTION herald.gap(text, bigint) IS
    'Whether messages above a position are gone: up to where and why (retention, dropped, or reset: the log itself ends before it)';

CREATE FUNCTION herald.tail_start(topics text, last int) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_tail_start';
COMMENT ON FUNCTION herald.tail_start(text, int) IS
    'The position after which the last so many messages of a topic or pattern stand';
-- Watching tables.

CREATE FUNCTION herald.publish_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_publish_change';
COMMENT ON FUNCTION herald.publish_change() IS 'The trigger of watched tables; put there by herald.watch';

CREATE FUNCTION herald.unwatch(watched regclass) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name;
    found_one boolean := false;
BEGIN
    IF watched IS NULL THEN
        RAISE EXCEPTION 'watched is NULL'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Give the name of a table.';
    END IF;
    FOR name IN SELECT t.tgname FROM pg_trigger AS t
                 WHERE t.tgrelid = watched AND t.tgname IN ('herald_watch', 'herald_watch_truncate')
                   AND NOT t.tgisinternal AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, watched);
        found_one := true;
    END LOOP;
    RETURN found_one;
END
$$;
COMMENT ON FUNCTION herald.unwatch(regclass) IS
    'Stops publishing the changes of a table; false if it was not watched. For the table''s owner';

CREATE FUNCTION herald.watch(
    watched regclass, topic text, events text DEFAULT 'insert,update,delete',
    columns text[] DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind "char";
    event text;
    row_events text[] := '{}';
    truncates boolean := false;
    missing text;
    arguments text;
BEGIN
    IF watched IS NULL OR events IS NULL THEN
        RAISE EXCEPTION '% is NULL', CASE WHEN watched IS NULL THEN 'watched' ELSE 'events' END
            USING ERRCODE = 'null_value_not_allowed', HINT = 'herald.watch(table, topic)';
    END IF;
    PERFORM herald.require_topic(watch.topic);
    SELECT c.relkind INTO kind FROM pg_class AS c WHERE c.oid = watched;
    IF kind IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', watched
            USING ERRCODE = 'wrong_object_type', HINT = 'Only tables can be watched.';
    END IF;
    IF (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = watched) = 'herald'::regnamespace THEN
        RAISE EXCEPTION '% belongs to the bus itself', watched
            USING ERRCODE = 'wrong_object_type', HINT = 'Subscribe to its topics instead.';
    END IF;
    FOREACH event IN ARRAY string_to_array(lower(events), ',') LOOP
        event := btrim(event);
        IF event = 'truncate' THEN
            truncates := true;
        ELSIF event IN ('insert', 'update', 'delete') THEN
            row_events := row_events || event;
        ELSE
            RAISE EXCEPTION 'event "%" is not known', event
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'events is a list of insert, update, delete, truncate.';
        END IF;
    END LOOP;
    IF cardinality(row_events) = 0 AND NOT truncates THEN
        RAISE EXCEPTION 'events is empty'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'events is a list of insert, update, delete, truncate.';
    END IF;
    IF cardinality(columns) = 0 THEN
        RAISE EXCEPTION 'columns is empty'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it NULL for all columns.';
    END IF;
    SELECT coalesce(c, 'NULL') INTO missing FROM unnest(columns) AS c
     WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                        WHERE a.attrelid = watched AND a.attname = c
                          AND a.attnum > 0 AND NOT a.attisdropped)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has no column "%"', watched, missing
            USING ERRCODE = 'undefined_column', HINT = 'Column names are case-sensitive here.';
    END IF;

    PERFORM herald.unwatch(watched);
    arguments := (SELECT string_agg(quote_literal(a), ', ' ORDER BY n)
                    FROM unnest(watch.topic || columns) WITH ORDINALITY AS x (a, n));
    IF cardinality(row_events) > 0 THEN
        EXECUTE format('CREATE TRIGGER herald_watch AFTER %s ON %s FOR EACH ROW '
                       'EXECUTE FUNCTION herald.publish_change(%s)',
                       array_to_string(row_events, ' OR '), watched, arguments);
    END IF;
    IF truncates THEN
        EXECUTE format('CREATE TRIGGER herald_watch_truncate AFTER TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION herald.publish_change(%s)',
                       watched, arguments);
    END IF;
END
$$;
COMMENT ON FUNCTION herald.watch(regclass, text, text, text[]) IS
    'Publishes the row changes of a table to a topic; again with other arguments: replaces. For the table''s owner';
-- Nothing is open to everybody: whoever is to use the bus gets it granted.
REVOKE ALL ON SCHEMA herald FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA herald FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA herald FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA herald FROM PUBLIC;
