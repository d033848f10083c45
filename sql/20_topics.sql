-- Topics. A topic comes into being with its first message; nothing is written for it then, so two
-- sends to the same new topic never wait for each other. What is known of topics:
--   herald.topic         those that create_topic described
--   herald.topic_start   those that lost messages: where they begin now
--   herald.topics        a view of these and of the counters (25_books.sql)

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
COMMENT ON TABLE herald.topic_start IS 'Topics whose messages up to start_pos are no longer readable; * stands for all those that are not known any more';
CREATE INDEX topic_start_start_pos_idx ON herald.topic_start (start_pos);

CREATE TABLE herald.state (
    singleton boolean NOT NULL DEFAULT true CHECK (singleton),
    folded_to bigint NOT NULL
);
COMMENT ON TABLE herald.state IS
    'A position up to which everything was decided once, which the log itself no longer shows when messages have gone. A restored dump adds a row; the highest counts';

SELECT pg_catalog.pg_extension_config_dump('herald.topic', '');
SELECT pg_catalog.pg_extension_config_dump('herald.topic_start', '');
SELECT pg_catalog.pg_extension_config_dump('herald.state', '');

CREATE VIEW herald.messages AS
SELECT m.pos, m.id, m.topic, m.at, m.sender, m.recipient, m.message_type, m.content, m.metadata,
       m.conversation, m.reply_to, m.priority, m.ordering_key, m.expires_at, m.workspace,
       m.idempotency_key, m.is_json, m.payload
  FROM herald.message AS m
 WHERE (m.expires_at IS NULL OR m.expires_at > statement_timestamp())
   AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                    WHERE s.topic = m.topic AND s.start_pos >= m.pos);
COMMENT ON VIEW herald.messages IS
    'All readable messages: neither expired nor of a dropped topic. Page with herald.read, which never skips';

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

CREATE FUNCTION herald.drop_topic(name text) RETURNS void
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
COMMENT ON FUNCTION herald.drop_topic(text) IS
    'Makes the messages of a topic unreadable, and forgets its description. Readers are told of the gap; later messages make the topic anew';
