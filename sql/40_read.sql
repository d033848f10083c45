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
    'The messages above a position, at most 100, as soon as there are any; none if the timeout comes first. Needs the engine';

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
    RETURNS TABLE (pos bigint, topic text, expires_us bigint, envelope text, lost text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_feed';
COMMENT ON FUNCTION herald.feed(text, bigint, int, int, int) IS
    'A page of envelopes above a position (topics NULL: all). The last row has no topic: its pos says how far the page is complete. expires_us: Unix microseconds. A row with lost, only if topics is NULL: messages of this topic in the page''s range, the last of them at pos, are gone, and why (of very many topics: one row for *)';

CREATE FUNCTION herald.gap(topics text, after bigint, OUT to_pos bigint, OUT why text)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_gap';
COMMENT ON FUNCTION herald.gap(text, bigint) IS
    'Whether messages above a position are gone: up to where and why (retention, dropped, or reset: the log itself ends before it)';

CREATE FUNCTION herald.tail_start(topics text, last int) RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_tail_start';
COMMENT ON FUNCTION herald.tail_start(text, int) IS
    'The position after which the last so many messages of a topic or pattern stand';
