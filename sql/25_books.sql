-- The books: what the log has of each topic, and since when. They can be made again from the log at
-- any time, so they are not dumped: what is restored is counted like what is sent.
--   herald.topic_segment   counters of a topic in a segment, up to herald.book.counted_to; the few
--                          messages above are counted when the view herald.topics is read
--   herald.mark            moments, and how far everything was readable then
-- They are written under herald.take_books(), which no sender waits for.

CREATE TABLE herald.topic_segment (
    topic text COLLATE "C" NOT NULL,
    segment bigint NOT NULL,
    messages bigint NOT NULL,
    bytes bigint NOT NULL,
    inline_bytes bigint NOT NULL,
    first_pos bigint NOT NULL,
    last_pos bigint NOT NULL,
    last_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    payloads_from bigint,
    payloads_to bigint,
    PRIMARY KEY (topic, segment)
) WITH (fillfactor = 45);  -- a round may write all rows of a page anew: on it, without index entries
COMMENT ON TABLE herald.topic_segment IS
    'Readable messages of a topic in a segment, up to herald.book.counted_to; no row: none';
COMMENT ON COLUMN herald.topic_segment.inline_bytes IS 'Those in the segment itself: of a payload only the reference';
COMMENT ON COLUMN herald.topic_segment.expires_at IS 'When the last of them has expired, and its idempotency key; infinity: never';
COMMENT ON COLUMN herald.topic_segment.payloads_from IS 'The first segment that payloads of such messages belong to; NULL: they have none';
COMMENT ON COLUMN herald.topic_segment.payloads_to IS 'The last one';
CREATE INDEX topic_segment_payloads_idx ON herald.topic_segment (payloads_from, payloads_to)
    WHERE payloads_from IS NOT NULL;
CREATE INDEX topic_segment_segment_idx ON herald.topic_segment (segment);
CREATE INDEX topic_segment_expires_at_idx ON herald.topic_segment (expires_at)
    WHERE expires_at < 'infinity';

CREATE TABLE herald.segment_book (
    segment bigint PRIMARY KEY,
    messages bigint NOT NULL,
    inline_bytes bigint NOT NULL
);
COMMENT ON TABLE herald.segment_book IS
    'Messages counted in a segment since it began, or was rewritten, whether they are kept or not';

CREATE TABLE herald.book (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    counted_to bigint NOT NULL,
    recount_to bigint NOT NULL
);
COMMENT ON TABLE herald.book IS 'How far the log is counted in herald.topic_segment';
COMMENT ON COLUMN herald.book.recount_to IS
    'Up to here messages were restored from a dump: they are as old as they say, not as their being counted';
INSERT INTO herald.book (counted_to, recount_to) VALUES (0, 0);

CREATE TABLE herald.mark (
    at timestamptz PRIMARY KEY,
    pos bigint NOT NULL
);
COMMENT ON TABLE herald.mark IS 'Everything up to pos was readable at this time; the older, the fewer';

CREATE OR REPLACE VIEW herald.topics AS
WITH tail AS (
    -- herald.content_bytes, which a reader of the view need not be granted.
    SELECT m.topic, count(*) AS messages,
           sum(CASE WHEN m.payload IS NULL THEN octet_length(m.content)
                    ELSE (m.content::json ->> 'bytes')::bigint END)::bigint AS bytes,
           min(m.pos) AS first_pos, max(m.pos) AS last_pos, max(m.at) AS last_at
      FROM herald.message AS m
     WHERE m.pos > (SELECT counted_to FROM herald.book)
       AND NOT EXISTS (SELECT FROM herald.topic_start AS s
                        WHERE s.topic = m.topic AND s.start_pos >= m.pos)
     GROUP BY m.topic
), counted AS (
    SELECT topic, sum(messages)::bigint AS messages, sum(bytes)::bigint AS bytes,
           min(first_pos) AS first_pos, max(last_pos) AS last_pos, max(last_at) AS last_at
      FROM (SELECT topic, messages, bytes, first_pos, last_pos, last_at FROM herald.topic_segment
            UNION ALL
            SELECT topic, messages, bytes, first_pos, last_pos, last_at FROM tail) AS parts
     GROUP BY topic
)
SELECT coalesce(t.name, c.topic) AS name, t.description,
       coalesce(t.created_at, (SELECT m.at FROM herald.message AS m WHERE m.pos = c.first_pos))
           AS created_at,
       coalesce(c.messages, 0) AS messages, coalesce(c.bytes, 0) AS bytes, c.last_pos, c.last_at,
       c.first_pos, (SELECT m.at FROM herald.message AS m WHERE m.pos = c.first_pos) AS first_at
  FROM herald.topic AS t
  FULL JOIN counted AS c ON c.topic = t.name;
COMMENT ON VIEW herald.topics IS
    'Topics in use or made by create_topic: stored messages, bytes of their contents, the first and the last one';

CREATE FUNCTION herald.take_books(wait boolean) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_take_books';
COMMENT ON FUNCTION herald.take_books(boolean) IS
    'Keeps others from writing the books until this transaction ends; false if somebody else does, and wait is false';

CREATE FUNCTION herald.has_unsettled() RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_has_unsettled';
COMMENT ON FUNCTION herald.has_unsettled() IS
    'Whether this transaction has messages that may still move to other positions';

CREATE FUNCTION herald.decided() RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_decided';
COMMENT ON FUNCTION herald.decided() IS
    'The horizon; without the engine more than that if nobody sends just now: the end of the numbers handed out';

CREATE FUNCTION herald.require_new_snapshots() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_require_new_snapshots';
COMMENT ON FUNCTION herald.require_new_snapshots() IS
    'Error in a transaction that works with one snapshot from its beginning to its end';

CREATE FUNCTION herald.forget_counters(topic text) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_forget_counters';
COMMENT ON FUNCTION herald.forget_counters(text) IS
    'Deletes the counters of a dropped topic; the caller has taken the books';

CREATE FUNCTION herald.fold(most int DEFAULT 100000) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- So long a repeated key finds its message, though that has expired.
    key_window CONSTANT interval := current_setting('herald.idempotency_window');
    book herald.book;
    decided bigint;
    upto bigint;
BEGIN
    IF NOT herald.take_books(false) OR herald.has_unsettled() THEN
        RETURN false;
    END IF;
    decided := herald.decided();
    SELECT b.* INTO STRICT book FROM herald.book AS b;
    IF decided <= book.counted_to THEN
        RETURN false;
    END IF;
    upto := coalesce((SELECT m.pos - 1 FROM herald.message AS m
                       WHERE m.pos > book.counted_to AND m.pos <= decided
                       ORDER BY m.pos OFFSET most LIMIT 1), decided);
    WITH part AS (
        SELECT m.topic, m.pos / herald.segment_width() AS segment, kept.kept, count(*) AS messages,
               sum(herald.content_bytes(m.content, m.payload)) AS bytes,
               sum(octet_length(m.content)) AS inline_bytes,
               min(m.pos) AS first_pos, max(m.pos) AS last_pos, max(m.at) AS last_at,
               max(greatest(coalesce(m.expires_at, 'infinity'),
                            CASE WHEN m.idempotency_key IS NOT NULL
                                 THEN least(m.at, clock_timestamp()) + key_window END)) AS expires_at,
               min(CASE WHEN m.payload IS NOT NULL THEN herald.payload_segment(m.payload) END) AS payloads_from,
               max(CASE WHEN m.payload IS NOT NULL THEN herald.payload_segment(m.payload) END) AS payloads_to
          FROM herald.message AS m
         CROSS JOIN LATERAL (SELECT NOT EXISTS (SELECT FROM herald.topic_start AS s
                                                 WHERE s.topic = m.topic AND s.start_pos >= m.pos)) AS kept (kept)
         WHERE m.pos > book.counted_to AND m.pos <= upto
         GROUP BY 1, 2, 3
    ), by_topic AS (
        INSERT INTO herald.topic_segment AS c
               (topic, segment, messages, bytes, inline_bytes, first_pos, last_pos, last_at,
                expires_at, payloads_from, payloads_to)
        SELECT p.topic, p.segment, p.messages, p.bytes, p.inline_bytes, p.first_pos, p.last_pos,
               p.last_at, p.expires_at, p.payloads_from, p.payloads_to
          FROM part AS p WHERE p.kept
            ON CONFLICT ON CONSTRAINT topic_segment_pkey DO UPDATE
           SET messages = c.messages + excluded.messages, bytes = c.bytes + excluded.bytes,
               inline_bytes = c.inline_bytes + excluded.inline_bytes,
               last_pos = excluded.last_pos, last_at = greatest(c.last_at, excluded.last_at),
               expires_at = greatest(c.expires_at, excluded.expires_at),
               payloads_from = least(c.payloads_from, excluded.payloads_from),
               payloads_to = greatest(c.payloads_to, excluded.payloads_to)
    )
    INSERT INTO herald.segment_book AS c (segment, messages, inline_bytes)
    SELECT p.segment, sum(p.messages), sum(p.inline_bytes) FROM part AS p GROUP BY p.segment
        ON CONFLICT ON CONSTRAINT segment_book_pkey DO UPDATE
       SET messages = c.messages + excluded.messages,
           inline_bytes = c.inline_bytes + excluded.inline_bytes;
    UPDATE herald.book SET counted_to = upto;
    UPDATE herald.state SET folded_to = greatest(folded_to, upto);
    IF NOT FOUND THEN
        INSERT INTO herald.state (folded_to) VALUES (upto);
    END IF;
    IF book.counted_to < book.recount_to THEN
        PERFORM herald.mark_time(
            (SELECT least(max(m.at), clock_timestamp()) FROM herald.message AS m
              WHERE m.pos > book.counted_to AND m.pos <= upto), '0');
    END IF;
    RETURN upto < decided;
END
$$;
COMMENT ON FUNCTION herald.fold(int) IS
    'Counts the next so many messages; true if there are more. Does nothing if somebody else keeps the books';

CREATE FUNCTION herald.mark_time(now timestamptz, at_least interval DEFAULT '1 second') RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counted_to bigint := (SELECT b.counted_to FROM herald.book AS b);
    last herald.mark;
BEGIN
    SELECT k.* INTO last FROM herald.mark AS k ORDER BY k.at DESC LIMIT 1;
    IF now IS NULL OR last.pos >= counted_to OR now < last.at + at_least THEN
        RETURN;
    END IF;
    INSERT INTO herald.mark AS k (at, pos) VALUES (greatest(now, last.at), counted_to)
        ON CONFLICT (at) DO UPDATE SET pos = excluded.pos;
    -- The moments between which one is left out are at most a twentieth of their age apart.
    DELETE FROM herald.mark AS k
     USING (SELECT m.at, row_number() OVER by_time AS number, lag(m.at) OVER by_time AS before,
                   lead(m.at) OVER by_time AS behind
              FROM herald.mark AS m WINDOW by_time AS (ORDER BY m.at)) AS around
     WHERE k.at = around.at AND around.number % 2 = 0
       AND (around.behind - around.before) * 20 < now - around.behind;
END
$$;
COMMENT ON FUNCTION herald.mark_time(timestamptz, interval) IS
    'Notes that everything counted is readable now; the caller has taken the books';

CREATE FUNCTION herald.recount(first bigint, last bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint := recount.first / herald.segment_width();
    start bigint := number * herald.segment_width();
BEGIN
    PERFORM herald.take_books(true);
    DELETE FROM herald.topic_segment AS c
     USING herald.book AS b WHERE b.counted_to >= recount.first AND c.segment >= number;
    DELETE FROM herald.segment_book AS c
     USING herald.book AS b WHERE b.counted_to >= recount.first AND c.segment >= number;
    DELETE FROM herald.mark AS k
     USING herald.book AS b WHERE b.counted_to >= recount.first AND k.pos >= start;
    UPDATE herald.book AS b
       SET counted_to = CASE WHEN b.counted_to < recount.first THEN b.counted_to ELSE start - 1 END,
           recount_to = greatest(b.recount_to, recount.last,
                                 CASE WHEN b.counted_to < recount.first THEN 0 ELSE b.counted_to END);
END
$$;
COMMENT ON FUNCTION herald.recount(bigint, bigint) IS
    'Messages were restored from a dump between these positions: lets their segments be counted anew';

CREATE FUNCTION herald.starts_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_starts_changed';
COMMENT ON FUNCTION herald.starts_changed() IS
    'Wakes the keeper; lets everything be counted anew if starts of topics change without the books: a dump brings them after the messages';

CREATE TRIGGER starts_changed AFTER INSERT OR UPDATE OR DELETE ON herald.topic_start
    FOR EACH STATEMENT EXECUTE FUNCTION herald.starts_changed();
ALTER TABLE herald.topic_start ENABLE ALWAYS TRIGGER starts_changed;
