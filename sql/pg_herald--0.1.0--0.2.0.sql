-- From 0.1.0 to 0.2.0: the engine.
\echo Use "ALTER EXTENSION pg_herald UPDATE" to load this file. \quit

COMMENT ON SEQUENCE herald.message_pos_seq IS 'The counter of positions; with the engine, how far they are reserved';

-- A dump carries the counter in a row of herald.restore from now on. (Leaving the extension and
-- coming back is the way to be no configuration table any more.)
ALTER EXTENSION pg_herald DROP SEQUENCE herald.message_pos_seq;
ALTER EXTENSION pg_herald ADD SEQUENCE herald.message_pos_seq;
SELECT pg_catalog.pg_extension_config_dump('herald.restore', $$WHERE false UNION ALL
    SELECT pos, id, topic, at, sender, recipient, message_type, content, metadata, conversation,
           reply_to, priority, ordering_key, expires_at, workspace, idempotency_key, is_json
    FROM herald.message UNION ALL
    SELECT last_value + is_called::int, '00000000-0000-0000-0000-000000000000', '', 'epoch', NULL,
           NULL, '', '', NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, false
    FROM herald.message_pos_seq$$);

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

CREATE FUNCTION herald.discard_own(topic text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_discard_own';
COMMENT ON FUNCTION herald.discard_own(text) IS
    'Deletes those messages of a topic that this transaction has sent and that may still move; returns how many';

CREATE OR REPLACE FUNCTION herald.fold() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    done bigint := coalesce((SELECT s.folded_to FROM herald.state AS s), 0);
    upto bigint := herald.horizon();
BEGIN
    IF upto <= done THEN
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
    last_pos := herald.last_position(drop_topic.name);
    PERFORM herald.settle(last_pos);
    IF last_pos > coalesce((SELECT s.start_pos FROM herald.topic_start AS s
                             WHERE s.topic = drop_topic.name), 0) THEN
        INSERT INTO herald.topic_start AS s (topic, start_pos, why)
        VALUES (drop_topic.name, last_pos, 'dropped')
            ON CONFLICT (topic) DO UPDATE SET start_pos = excluded.start_pos, why = excluded.why;
        DELETE FROM herald.topic_count AS c WHERE c.topic = drop_topic.name;
        PERFORM herald.announce_reset();
    ELSIF NOT described AND own = 0 THEN
        RAISE EXCEPTION 'topic "%" does not exist', drop_topic.name
            USING ERRCODE = 'undefined_object', HINT = 'herald.topics lists the topics there are.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION herald.maintain() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.take_order();
    PERFORM herald.fold();
    PERFORM herald.make_segment((herald.next_free_position() / herald.segment_width() + 1)
                                * herald.segment_width());
END
$$;

COMMENT ON FUNCTION herald.maintain() IS
    'Does by hand what senders or the dispatcher do now and then: counts the topics up to now and makes the next segment';
COMMENT ON FUNCTION herald.wait_for(text, bigint, interval) IS
    'The messages above a position, at most 100, as soon as there are any; none if the timeout comes first. Needs the engine';

-- Scheduled messages: what was sent with deliver_at waits here until it is due.

-- The columns of herald.message, with deliver_at in the place of pos (see extension/schedule.cpp).
CREATE TABLE herald.scheduled (
    deliver_at timestamptz NOT NULL,
    id uuid PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    sender text,
    recipient text,
    message_type text NOT NULL,
    content text NOT NULL,
    metadata jsonb,
    conversation text COLLATE "C",
    reply_to uuid,
    priority smallint NOT NULL,
    ordering_key text COLLATE "C",
    expires_at timestamptz,
    workspace text,
    idempotency_key text COLLATE "C",
    is_json boolean NOT NULL
);
COMMENT ON TABLE herald.scheduled IS
    'Messages that wait for their deliver_at; then they enter the log. Add by the deliver_at argument of a send, remove by herald.cancel';
CREATE INDEX scheduled_deliver_at_idx ON herald.scheduled (deliver_at, id);
CREATE INDEX scheduled_idempotency_key_idx ON herald.scheduled (idempotency_key, topic)
    WHERE idempotency_key IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('herald.scheduled', '');

CREATE FUNCTION herald.schedule_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_schedule_changed';
COMMENT ON FUNCTION herald.schedule_changed() IS 'Tells the dispatcher, when the transaction ends, that the schedule has changed';

CREATE TRIGGER schedule_changed AFTER INSERT OR DELETE ON herald.scheduled
    FOR EACH ROW EXECUTE FUNCTION herald.schedule_changed();

COMMENT ON FUNCTION herald.cancel(uuid) IS
    'Cancels a message whose deliver_at has not come; false if there is no such message any more. Needs the engine';

-- Looking into the engine.

CREATE FUNCTION herald.engine_state(
    OUT loaded boolean, OUT next_position bigint, OUT horizon bigint, OUT reserved_to bigint,
    OUT announced_to bigint, OUT senders int, OUT oldest_sender timestamptz,
    OUT restamped_transactions bigint, OUT restamped_messages bigint, OUT dispatcher_pid int,
    OUT dispatcher_lag bigint, OUT notifications bigint, OUT notifications_per_second float8,
    OUT wake_ups bigint, OUT next_delivery timestamptz
)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_engine_state';
COMMENT ON FUNCTION herald.engine_state() IS 'What herald.engine shows';

CREATE VIEW herald.engine AS SELECT * FROM herald.engine_state();
COMMENT ON VIEW herald.engine IS 'The state of the engine in this database';
COMMENT ON COLUMN herald.engine.loaded IS 'Whether the library was preloaded; if not, most columns are NULL';
COMMENT ON COLUMN herald.engine.next_position IS 'The next position';
COMMENT ON COLUMN herald.engine.horizon IS 'Everything up to here is decided';
COMMENT ON COLUMN herald.engine.reserved_to IS 'Positions up to here are reserved; after a crash positions go on above';
COMMENT ON COLUMN herald.engine.announced_to IS 'Everything up to here has been announced';
COMMENT ON COLUMN herald.engine.senders IS 'Open transactions that have sent';
COMMENT ON COLUMN herald.engine.oldest_sender IS 'When the oldest of them sent first';
COMMENT ON COLUMN herald.engine.restamped_transactions IS 'Transactions whose messages got new positions because they were late, since the server''s start';
COMMENT ON COLUMN herald.engine.restamped_messages IS 'How many messages those were';
COMMENT ON COLUMN herald.engine.dispatcher_pid IS 'The background worker of this database; NULL: it does not run';
COMMENT ON COLUMN herald.engine.dispatcher_lag IS 'How many positions are decided and not yet announced';
COMMENT ON COLUMN herald.engine.notifications IS 'NOTIFYs since the server''s start';
COMMENT ON COLUMN herald.engine.notifications_per_second IS 'NOTIFYs per second, lately';
COMMENT ON COLUMN herald.engine.wake_ups IS 'Rounds of the dispatcher since the server''s start';
COMMENT ON COLUMN herald.engine.next_delivery IS 'When the dispatcher looks for scheduled messages next';

CREATE FUNCTION herald.engine_senders() RETURNS TABLE (
    pid int, since timestamptz, low_position bigint, state text, kind text
)
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'herald_engine_senders';
COMMENT ON FUNCTION herald.engine_senders() IS 'What herald.senders shows';

CREATE VIEW herald.senders AS SELECT * FROM herald.engine_senders();
COMMENT ON VIEW herald.senders IS 'Open transactions that have sent, and what they hold of the order';
COMMENT ON COLUMN herald.senders.since IS 'When it sent first (near), or began to hold others back (far)';
COMMENT ON COLUMN herald.senders.low_position IS 'All its positions of this kind are at or above';
COMMENT ON COLUMN herald.senders.state IS 'open; late: overtaken, its messages get new positions; committing';
COMMENT ON COLUMN herald.senders.kind IS 'near: from the counter; far: a block ahead of it';

REVOKE ALL ON herald.horizon_seq, herald.timeline_seq, herald.scheduled, herald.engine, herald.senders
    FROM PUBLIC;
REVOKE ALL ON FUNCTION herald.settle(bigint), herald.next_free_position(), herald.schedule_changed(),
    herald.discard_own(text), herald.engine_state(), herald.engine_senders() FROM PUBLIC;
