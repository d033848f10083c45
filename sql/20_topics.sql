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
COMMENT ON FUNCTION herald.drop_topic(text) IS
    'Makes the messages of a topic unreadable, and forgets its description. Readers are told of the gap; later messages make the topic anew';

CREATE FUNCTION herald.maintain() RETURNS void
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
