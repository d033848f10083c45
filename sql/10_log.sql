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
COMMENT ON SEQUENCE herald.message_pos_seq IS 'The counter of positions; with the engine, how far they are reserved';

-- Two more registers, kept in sequences because these are durable at once, leave no dead rows and
-- take part in no rollback (see extension/register.h).
CREATE SEQUENCE herald.horizon_seq AS bigint MINVALUE 0 START 0;
CREATE SEQUENCE herald.timeline_seq AS bigint;
COMMENT ON SEQUENCE herald.horizon_seq IS 'The horizon as standbys learn it';
COMMENT ON SEQUENCE herald.timeline_seq IS 'The timeline on which positions were last handed out';

CREATE FUNCTION herald.next_position() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_next_position';
COMMENT ON FUNCTION herald.next_position() IS
    'The next position in the order of all messages, for this transaction. The default of herald.message.pos';

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
    payload uuid,
    PRIMARY KEY (pos)
) PARTITION BY RANGE (pos);
COMMENT ON TABLE herald.message IS
    'The log. Rows may be added by plain INSERT or COPY without pos; read it through herald.messages';
COMMENT ON COLUMN herald.message.pos IS 'Position in the one order of all messages';
COMMENT ON COLUMN herald.message.id IS 'UUID version 7';
COMMENT ON COLUMN herald.message.at IS 'When it was sent';
COMMENT ON COLUMN herald.message.content IS 'Text, or JSON text if is_json';
COMMENT ON COLUMN herald.message.is_json IS 'content is a JSON value (publish), not plain text (send_message)';
COMMENT ON COLUMN herald.message.payload IS 'The payload that the message is about; its content is the reference to it, as in the envelope';

CREATE INDEX message_topic_pos_idx ON herald.message (topic, pos);
CREATE INDEX message_id_idx ON herald.message (id);
CREATE INDEX message_conversation_idx ON herald.message (conversation, pos)
    WHERE conversation IS NOT NULL;
CREATE INDEX message_idempotency_key_idx ON herald.message (idempotency_key, topic)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX message_payload_idx ON herald.message (payload) WHERE payload IS NOT NULL;

-- (Its body is parsed here, not where it is inlined: whatever search_path there is.)
CREATE FUNCTION herald.content_bytes(content text, payload uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN payload IS NULL THEN octet_length(content)
                ELSE (content::json ->> 'bytes')::bigint END;
COMMENT ON FUNCTION herald.content_bytes(text, uuid) IS
    'How many bytes a message''s content has, in the log or as a payload';

CREATE FUNCTION herald.log_inserted() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_log_inserted';
COMMENT ON FUNCTION herald.log_inserted() IS 'Checks and announces rows that enter the log by INSERT or COPY';

CREATE TRIGGER log_inserted AFTER INSERT ON herald.message
    FOR EACH ROW EXECUTE FUNCTION herald.log_inserted();

CREATE TABLE herald.message_0 PARTITION OF herald.message FOR VALUES FROM (0) TO (1000000000);
CREATE TABLE herald.message_1 PARTITION OF herald.message FOR VALUES FROM (1000000000) TO (2000000000);
-- ANALYZE keeps samples of what it sees; a purge could not reach them (extension/log.cpp as well).
ALTER TABLE herald.message
    ALTER sender SET STATISTICS 0, ALTER recipient SET STATISTICS 0, ALTER content SET STATISTICS 0,
    ALTER metadata SET STATISTICS 0, ALTER conversation SET STATISTICS 0,
    ALTER ordering_key SET STATISTICS 0, ALTER workspace SET STATISTICS 0,
    ALTER idempotency_key SET STATISTICS 0;
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
    'Keeps other administrators away until this transaction ends; without the engine senders as well';

CREATE FUNCTION herald.settle(pos bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_settle';
COMMENT ON FUNCTION herald.settle(bigint) IS
    'Returns when every message up to this position is decided; the caller holds herald.take_order()';

CREATE FUNCTION herald.next_free_position() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_next_free_position';
COMMENT ON FUNCTION herald.next_free_position() IS 'The first position that has not been handed out';

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
    first := (herald.next_free_position() / herald.segment_width() + 1) * herald.segment_width();
    PERFORM herald.begin_segment_at_commit(first);
    PERFORM herald.make_segment(first + herald.segment_width());
    RETURN first;
END
$$;
COMMENT ON FUNCTION herald.start_segment() IS
    'Lets the first message after this transaction begin a new segment of the log; returns its first position';

-- What pg_dump sees. The segments belong to the extension, so it does not dump them table by table;
-- this table, always empty, stands for all of them: its filter reads the log, and its trigger puts
-- what is restored back into the log at the old positions. A row without a topic is the counter:
-- restored together with the messages, and never backwards, as a sequence's value would be.
CREATE TABLE herald.restore (LIKE herald.message);
COMMENT ON TABLE herald.restore IS 'Where pg_restore puts messages; always empty';

CREATE FUNCTION herald.log_restored() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_log_restored';
COMMENT ON FUNCTION herald.log_restored() IS 'Puts a dumped message back into the log at its position';

CREATE TRIGGER log_restored BEFORE INSERT ON herald.restore
    FOR EACH ROW EXECUTE FUNCTION herald.log_restored();
ALTER TABLE herald.restore ENABLE ALWAYS TRIGGER log_restored;

SELECT pg_catalog.pg_extension_config_dump('herald.restore', $$WHERE false UNION ALL
    SELECT pos, id, topic, at, sender, recipient, message_type, content, metadata, conversation,
           reply_to, priority, ordering_key, expires_at, workspace, idempotency_key, is_json,
           payload
    FROM herald.message UNION ALL
    SELECT last_value + is_called::int, '00000000-0000-0000-0000-000000000000', '', 'epoch', NULL,
           NULL, '', '', NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, false, NULL
    FROM herald.message_pos_seq$$);
