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
