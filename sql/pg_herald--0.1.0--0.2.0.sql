-- From 0.1.0 to 0.2.0: the engine.
\echo Use "ALTER EXTENSION pg_herald UPDATE" to load this file. \quit

COMMENT ON SEQUENCE herald.message_pos_seq IS 'The counter of positions; with the engine, how far they are reserved';

ALTER TABLE herald.message ADD COLUMN payload uuid;
ALTER TABLE herald.restore ADD COLUMN payload uuid;
COMMENT ON COLUMN herald.message.payload IS 'The payload that the message is about; its content is the reference to it, as in the envelope';
CREATE INDEX message_payload_idx ON herald.message (payload) WHERE payload IS NOT NULL;
CREATE FUNCTION herald.content_bytes(content text, payload uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN payload IS NULL THEN octet_length(content)
                ELSE (content::json ->> 'bytes')::bigint END;
COMMENT ON FUNCTION herald.content_bytes(text, uuid) IS
    'How many bytes a message''s content has, in the log or as a payload';
CREATE OR REPLACE VIEW herald.messages AS
SELECT m.pos, m.id, m.topic, m.at, m.sender, m.recipient, m.message_type, m.content, m.metadata,
       m.conversation, m.reply_to, m.priority, m.ordering_key, m.expires_at, m.workspace,
       m.idempotency_key, m.is_json, m.payload
  FROM herald.message AS m
 WHERE (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
   AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                    WHERE s.topic = m.topic AND s.start_pos >= m.pos);

-- A dump carries the counter in a row of herald.restore from now on. (Leaving the extension and
-- coming back is the way to be no configuration table any more.)
ALTER EXTENSION pg_herald DROP SEQUENCE herald.message_pos_seq;
ALTER EXTENSION pg_herald ADD SEQUENCE herald.message_pos_seq;
SELECT pg_catalog.pg_extension_config_dump('herald.restore', $$WHERE false UNION ALL
    SELECT pos, id, topic, at, sender, recipient, message_type, content, metadata, conversation,
           reply_to, priority, ordering_key, expires_at, workspace, idempotency_key, is_json,
           payload
    FROM herald.message UNION ALL
    SELECT last_value + is_called::int, '00000000-0000-0000-0000-000000000000', '', 'epoch', NULL,
           NULL, '', '', NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, false, NULL
    FROM herald.message_pos_seq$$);

-- As in 10_log.sql.
ALTER TABLE herald.message
    ALTER sender SET STATISTICS 0, ALTER recipient SET STATISTICS 0, ALTER content SET STATISTICS 0,
    ALTER metadata SET STATISTICS 0, ALTER conversation SET STATISTICS 0,
    ALTER ordering_key SET STATISTICS 0, ALTER workspace SET STATISTICS 0,
    ALTER idempotency_key SET STATISTICS 0;

CREATE SEQUENCE herald.horizon_seq AS bigint MINVALUE 0 START 0;
CREATE SEQUENCE herald.timeline_seq AS bigint;
COMMENT ON SEQUENCE herald.horizon_seq IS 'The horizon as standbys learn it';
COMMENT ON SEQUENCE herald.timeline_seq IS 'The timeline on which positions were last handed out';

COMMENT ON FUNCTION herald.next_position() IS
    'The next position in the order of all messages, for this transaction. The default of herald.message.pos';
COMMENT ON FUNCTION herald.take_order() IS
    'Keeps other administrators away until this transaction ends; without the engine senders as well';

CREATE FUNCTION herald.settle(pos bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_settle';
COMMENT ON FUNCTION herald.settle(bigint) IS
    'Returns when every message up to this position is decided; the caller holds herald.take_order()';

CREATE FUNCTION herald.next_free_position() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_next_free_position';
COMMENT ON FUNCTION herald.next_free_position() IS 'The first position that has not been handed out';

CREATE OR REPLACE FUNCTION herald.start_segment() RETURNS bigint
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

DROP FUNCTION herald.feed(text, bigint, int, int, int);
CREATE FUNCTION herald.feed(topics text, after bigint, max_rows int, max_bytes int, max_frame int)
    RETURNS TABLE (pos bigint, topic text, expires_us bigint, envelope text, lost text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_feed';
COMMENT ON FUNCTION herald.feed(text, bigint, int, int, int) IS
    'A page of envelopes above a position (topics NULL: all). The last row has no topic: its pos says how far the page is complete. expires_us: Unix microseconds. A row with lost, only if topics is NULL: messages of this topic in the page''s range, the last of them at pos, are gone, and why (of very many topics: one row for *)';

CREATE FUNCTION herald.alter_topic(
    name text, description text DEFAULT NULL, if_exists boolean DEFAULT false
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_sort = off AS $$
DECLARE
    used_since timestamptz;
BEGIN
    PERFORM herald.require_topic(alter_topic.name);
    UPDATE herald.topic AS t SET description = alter_topic.description
     WHERE t.name = alter_topic.name;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT m.at INTO used_since FROM herald.messages AS m
     WHERE (m.topic, m.pos) > (alter_topic.name, 0)
       AND (m.topic, m.pos) <= (alter_topic.name, 9007199254740991)
     ORDER BY m.topic, m.pos LIMIT 1;
    IF FOUND THEN
        INSERT INTO herald.topic AS t (name, description, created_at)
        VALUES (alter_topic.name, alter_topic.description, used_since)
            ON CONFLICT ON CONSTRAINT topic_pkey DO UPDATE SET description = excluded.description;
    ELSIF NOT coalesce(if_exists, false) THEN
        RAISE EXCEPTION 'topic "%" does not exist', alter_topic.name
            USING ERRCODE = 'undefined_object',
                  HINT = 'herald.create_topic makes it, or its first message. (A topic cannot be renamed: messages have its name.)';
    END IF;
END
$$;
COMMENT ON FUNCTION herald.alter_topic(text, text, boolean) IS
    'Describes a topic that is there anew; without a description takes that away. What is kept of it: set_retention';

CREATE FUNCTION herald.discard_own(topic text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_discard_own';
COMMENT ON FUNCTION herald.discard_own(text) IS
    'Deletes those messages of a topic that this transaction has sent and that may still move; returns how many';

CREATE INDEX topic_start_start_pos_idx ON herald.topic_start (start_pos);
COMMENT ON TABLE herald.topic_start IS 'Topics whose messages up to start_pos are no longer readable; * stands for all those that are not known any more';
COMMENT ON TABLE herald.state IS
    'A position up to which everything was decided once, which the log itself no longer shows when messages have gone. A restored dump adds a row; the highest counts';
ALTER TABLE herald.state DROP CONSTRAINT state_pkey;

CREATE OR REPLACE FUNCTION herald.drop_topic(name text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    described boolean;
    own bigint;
    last_pos bigint;
BEGIN
    PERFORM herald.require_topic(drop_topic.name);
    PERFORM herald.take_order();
    DELETE FROM herald.topic AS t WHERE t.name = drop_topic.name;
    described := FOUND;
    own := herald.discard_own(drop_topic.name);
    -- The books first: nothing is counted that the last position doesn't cover.
    PERFORM herald.take_books(true);
    last_pos := herald.last_position(drop_topic.name);
    PERFORM herald.settle(last_pos);
    IF last_pos > coalesce((SELECT s.start_pos FROM herald.topic_start AS s
                             WHERE s.topic = drop_topic.name), 0) THEN
        INSERT INTO herald.topic_start AS s (topic, start_pos, why)
        VALUES (drop_topic.name, last_pos, 'dropped')
            ON CONFLICT (topic) DO UPDATE SET start_pos = excluded.start_pos, why = excluded.why;
        PERFORM herald.forget_counters(drop_topic.name);
        PERFORM herald.announce_reset();
    ELSIF NOT described AND own = 0 THEN
        RAISE EXCEPTION 'topic "%" does not exist', drop_topic.name
            USING ERRCODE = 'undefined_object', HINT = 'herald.topics lists the topics there are.';
    END IF;
END
$$;

COMMENT ON FUNCTION herald.wait_for(text, bigint, interval) IS
    'The messages above a position, at most 100, as soon as there are any; none if the timeout comes first. Needs the engine';

-- The counters are made anew, per segment; they can be at any time.
DROP FUNCTION herald.fold();
ALTER EXTENSION pg_herald DROP TABLE herald.topic_count;
ALTER TABLE herald.topic_count RENAME TO old_topic_count;

-- New chapters of the schema; make puts them here.
-- chapter: 25_books.sql
-- chapter: 35_schedule.sql
-- chapter: 45_retention.sql
-- chapter: 46_segments.sql
-- chapter: 47_payloads.sql
-- chapter: 48_archive.sql
-- chapter: 49_purge.sql
-- chapter: 60_engine.sql

DROP TABLE herald.old_topic_count;

REVOKE ALL ON herald.horizon_seq, herald.timeline_seq, herald.topic_segment, herald.book, herald.mark,
    herald.scheduled, herald.retention, herald.segment_book, herald.segments, herald.archive, herald.archives, herald.purge,
    herald.purge_id_seq, herald.purges, herald.waste, herald.engine, herald.senders,
    herald.payload, herald.payload_chunk, herald.payload_0, herald.payload_1, herald.payload_audit,
    herald.payload_let_go, herald.payload_book, herald.payload_restore, herald.payloads,
    herald.payload_segments FROM PUBLIC;
REVOKE ALL ON FUNCTION herald.feed(text, bigint, int, int, int), herald.settle(bigint), herald.next_free_position(), herald.schedule_changed(),
    herald.discard_own(text), herald.take_books(boolean), herald.has_unsettled(), herald.fold(int),
    herald.require_new_snapshots(), herald.forget_counters(text),
    herald.mark_time(timestamptz, interval), herald.recount(bigint, bigint), herald.starts_changed(),
    herald.require_pattern(text), herald.set_retention(text, interval, bigint, bigint),
    herald.reset_retention(text), herald.retention_for(text), herald.readable_before(timestamptz),
    herald.old_by(herald.retention, timestamptz),
    herald.let_go(text, bigint, text), herald.let_go_of(text[], bigint[], text),
    herald.first_kept(text, bigint, bigint, bigint, herald.retention, timestamptz),
    herald.enforce_retention(timestamptz), herald.take_counted_books(), herald.trim(text, bigint),
    herald.trim(text, timestamptz), herald.keep(timestamptz), herald.forget_starts(bigint), herald.rules_changed(),
    herald.segment_tables(), herald.held_by(bigint), herald.removable_segments(),
    herald.users_of(regclass[], boolean, boolean), herald.rotate(timestamptz), herald.remove_segment(regclass),
    herald.alter_topic(text, text, boolean), herald.trim_to(text[], bigint[]),
    herald.archive_to(text, text), herald.archive_to(text, regclass), herald.stop_archive(text),
    herald.add_archive(text, text, text, text, bigint), herald.advance_archive(text),
    herald.write_archive(text, text, text, text, bigint), herald.try_archive(text),
    herald.only_archived(text[], bigint[]), herald.missing_archives(text[], bigint[]),
    herald.want_archived(text[], bigint[]), herald.archive_before(text[], bigint[]),
    herald.keep_archives(), herald.catch_up_archives(), herald.waits_for_archive(bigint),
    herald.waiting_messages(text, bigint, bigint), herald.read_archive(text, text, bigint, bigint),
    herald.read_archived_payload(text, uuid, bigint, bigint),
    herald.is_small(regclass), herald.is_sparse(bigint, regclass), herald.rewritable_segments(),
    herald.member_tables(text), herald.waste_tables(), herald.drop_waste(regclass),
    herald.rewrite_tables(), herald.rewritten(bigint, bigint, bigint, bigint), herald.rewrite_table(regclass),
    herald.forget_segments(), herald.decided(), herald.purge(text), herald.purge_asked(),
    herald.maintain_at(timestamptz), herald.engine_state(), herald.engine_senders(),
    herald.content_bytes(text, uuid), herald.payload_segment(uuid),
    herald.put_payload(bytea, text, text, bytea), herald.payload_open(text, text, bigint),
    herald.payload_write(uuid, bytea, bigint), herald.payload_close(uuid, bytea),
    herald.payload_abort(uuid), herald.payload_read(uuid, bigint, bigint),
    herald.payload_stored(uuid, bigint, int),
    herald.send_payload(uuid, text, text, text, text, jsonb, text, text, uuid, int, text, timestamptz, interval, text),
    herald.payload_tables(), herald.payloads_held_by(bigint), herald.free_chunks(uuid, bigint),
    herald.keep_payloads(timestamptz), herald.remove_payloads(bigint), herald.remove_payloads(),
    herald.room(bigint, bigint), herald.note_payloads_let_go(bigint, bigint, bigint), herald.counters_deleted(),
    herald.unkept_payloads(bigint), herald.expire_unkept(bigint), herald.look_at_payloads(),
    herald.rewritable_payloads(), herald.rewritable_tables(),
    herald.payloads_rewritten(bigint, bigint, bigint, bigint), herald.payloads_gone(bigint),
    herald.payload_restored() FROM PUBLIC;
