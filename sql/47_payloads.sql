-- Payloads: contents too large for the log. A message refers to one; see extension/payload.h.

CREATE TABLE herald.payload (
    id uuid PRIMARY KEY,
    segment bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'complete', 'error', 'expired')),
    content_type text NOT NULL,
    compression text NOT NULL CHECK (compression IN ('none', 'gzip', 'zstd')),
    bytes bigint NOT NULL,
    stored_bytes bigint NOT NULL,
    chunks bigint NOT NULL,
    expected_bytes bigint,
    digest bytea,
    hash_state bytea,
    owner name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz,
    expires_at timestamptz,
    accessed_at timestamptz,
    error text
);
COMMENT ON TABLE herald.payload IS 'Large contents, and uploads of them; look at herald.payloads';
COMMENT ON COLUMN herald.payload.segment IS 'Its chunks are in herald.payload_<segment>';
COMMENT ON COLUMN herald.payload.digest IS 'SHA-256, once it is complete';
COMMENT ON COLUMN herald.payload.hash_state IS 'While it is pending: the computation of the digest so far';
COMMENT ON COLUMN herald.payload.expires_at IS 'Then it goes if it is pending, or in no message; NULL: it goes with its messages';
CREATE INDEX payload_segment_idx ON herald.payload (segment);
CREATE INDEX payload_expires_at_idx ON herald.payload (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE herald.payload_chunk (
    payload uuid NOT NULL,
    start bigint NOT NULL,
    bytes int NOT NULL,
    checksum bigint NOT NULL,
    data bytea NOT NULL
);
ALTER TABLE herald.payload_chunk ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE herald.payload_chunk IS
    'Chunks of payloads; always empty itself: they are in herald.payload_<segment>, which inherit from it';
COMMENT ON COLUMN herald.payload_chunk.start IS 'Where in the content it begins';
COMMENT ON COLUMN herald.payload_chunk.bytes IS 'Of the content';
COMMENT ON COLUMN herald.payload_chunk.checksum IS 'CRC-32C of payload, start, bytes and data';
COMMENT ON COLUMN herald.payload_chunk.data IS 'One frame of the payload''s compression';

-- One for each segment of the log that there is; make_segment makes the others.
DO $$
DECLARE
    number bigint;
BEGIN
    FOR number IN SELECT t.number FROM herald.segment_tables() AS t LOOP
        EXECUTE pg_catalog.format('CREATE TABLE herald.payload_%s (PRIMARY KEY (payload, start))'
                                  ' INHERITS (herald.payload_chunk)', number);
        EXECUTE pg_catalog.format('COMMENT ON TABLE herald.payload_%s IS'
                                  ' ''Chunks of payloads, of one segment''', number);
    END LOOP;
END
$$;

CREATE TABLE herald.payload_audit (
    at timestamptz NOT NULL,
    payload uuid NOT NULL,
    message uuid,
    role name NOT NULL,
    "offset" bigint NOT NULL
);
COMMENT ON TABLE herald.payload_audit IS
    'Who read which payload when, while herald.audit is on; a row for each transfer. Rows go with their payload, or by the age limit for all topics';
COMMENT ON COLUMN herald.payload_audit.message IS 'A message that it was in; NULL: in none yet';
COMMENT ON COLUMN herald.payload_audit."offset" IS 'Where in the content the transfer began';
CREATE INDEX payload_audit_payload_idx ON herald.payload_audit (payload);
CREATE INDEX payload_audit_at_idx ON herald.payload_audit (at);
SELECT pg_catalog.pg_extension_config_dump('herald.payload_audit', '');

CREATE FUNCTION herald.payload_segment(payload uuid) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.segment FROM herald.payload AS p WHERE p.id = payload_segment.payload
$$;
COMMENT ON FUNCTION herald.payload_segment(uuid) IS 'Which herald.payload_<n> has its chunks; NULL: it is gone';

CREATE VIEW herald.payloads AS
SELECT p.id, p.state, p.content_type, p.compression, p.bytes, p.stored_bytes, p.chunks, p.expected_bytes,
       'sha256:' || pg_catalog.encode(p.digest, 'hex') AS checksum, p.owner, p.created_at,
       p.completed_at, p.expires_at, p.accessed_at, p.error, p.segment
  FROM herald.payload AS p;
COMMENT ON VIEW herald.payloads IS 'Large contents, and uploads of them';
COMMENT ON COLUMN herald.payloads.state IS
    'pending: an upload; complete; error: see there; expired: it was not written to, or not sent, in time';
COMMENT ON COLUMN herald.payloads.bytes IS 'Of the content, so far';
COMMENT ON COLUMN herald.payloads.stored_bytes IS 'Of it as it is stored';
COMMENT ON COLUMN herald.payloads.chunks IS 'In how many pieces it is stored';
COMMENT ON COLUMN herald.payloads.expected_bytes IS 'How many the upload is to have, as it said';
COMMENT ON COLUMN herald.payloads.expires_at IS 'Then it goes if it is pending, or in no message; NULL: it goes with its messages';
COMMENT ON COLUMN herald.payloads.accessed_at IS 'When it was read last, to the minute';

CREATE FUNCTION herald.put_payload(
    content bytea, content_type text DEFAULT 'application/octet-stream',
    compression text DEFAULT 'zstd', digest bytea DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_put_payload';
COMMENT ON FUNCTION herald.put_payload(bytea, text, text, bytea) IS
    'Stores a content (compression: none, gzip, zstd) to be sent by herald.send_payload; error if digest is given and is not its SHA-256';

CREATE FUNCTION herald.payload_open(
    content_type text DEFAULT 'application/octet-stream', compression text DEFAULT 'zstd',
    bytes bigint DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_payload_open';
COMMENT ON FUNCTION herald.payload_open(text, text, bigint) IS
    'Begins an upload, of so many bytes if that is known; it may go on in other transactions and sessions';

CREATE FUNCTION herald.payload_write(payload uuid, content bytea, "offset" bigint DEFAULT NULL)
    RETURNS bigint
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_payload_write';
COMMENT ON FUNCTION herald.payload_write(uuid, bytea, bigint) IS
    'Adds to an upload; returns how many bytes it has now. Error if an offset is given and is not its end';

CREATE FUNCTION herald.payload_close(payload uuid, digest bytea DEFAULT NULL) RETURNS bytea
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_payload_close';
COMMENT ON FUNCTION herald.payload_close(uuid, bytea) IS
    'Completes an upload; returns the SHA-256 of its content. If another digest is given: error, and the upload is still pending';

CREATE FUNCTION herald.payload_abort(payload uuid) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_payload_abort';
COMMENT ON FUNCTION herald.payload_abort(uuid) IS 'Gives an upload up';

CREATE FUNCTION herald.payload_read(
    payload uuid, "offset" bigint DEFAULT 0, length bigint DEFAULT NULL
) RETURNS bytea
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_payload_read';
COMMENT ON FUNCTION herald.payload_read(uuid, bigint, bigint) IS
    'Bytes of a payload that is in a readable message, or is the caller''s own and was not sent yet; at most up to its end';

CREATE FUNCTION herald.payload_stored(payload uuid, "from" bigint, max_bytes int)
    RETURNS TABLE (start bigint, bytes int, data bytea)
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'herald_payload_stored';
COMMENT ON FUNCTION herald.payload_stored(uuid, bigint, int) IS
    'A payload as it is stored: frames of its compression, from the one with this byte on, until max_bytes are reached';

CREATE FUNCTION herald.send_payload(
    payload uuid, topic text DEFAULT NULL, sender text DEFAULT NULL, recipient text DEFAULT NULL,
    message_type text DEFAULT 'notification', metadata jsonb DEFAULT NULL,
    conversation text DEFAULT NULL, workspace text DEFAULT NULL, reply_to uuid DEFAULT NULL,
    priority int DEFAULT 0, ordering_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    ttl interval DEFAULT NULL, idempotency_key text DEFAULT NULL
) RETURNS uuid
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_send_payload';
COMMENT ON FUNCTION herald.send_payload(uuid, text, text, text, text, jsonb, text, text, uuid, int, text, timestamptz, interval, text) IS
    'Sends a message whose content is a complete payload; returns the message''s id';

-- Life: what nobody sends goes in time, what was sent with its messages.

CREATE FUNCTION herald.payload_tables() RETURNS TABLE (number bigint, chunks regclass)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(c.relname, 9)::bigint, c.oid::regclass
      FROM pg_class AS c
     WHERE c.relnamespace = 'herald'::regnamespace AND c.relkind = 'r'
       AND c.relname ~ '^payload_[0-9]+$'
       AND EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
$$;
COMMENT ON FUNCTION herald.payload_tables() IS 'The tables that hold chunks';

CREATE FUNCTION herald.payloads_held_by(number bigint) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
           WHEN (SELECT e.next_position FROM herald.engine_state() AS e)
                < (payloads_held_by.number + 1) * herald.segment_width() THEN 'open'
           WHEN EXISTS (SELECT FROM herald.payload AS p
                         WHERE p.segment = payloads_held_by.number
                           AND (p.state = 'pending'
                                OR p.state = 'complete' AND p.expires_at IS NOT NULL))
               THEN 'uploads'
           WHEN EXISTS (SELECT FROM herald.topic_segment AS c
                         WHERE c.payloads_from <= payloads_held_by.number
                           AND c.payloads_to >= payloads_held_by.number) THEN 'messages'
           WHEN EXISTS (SELECT FROM herald.scheduled AS s
                         WHERE s.payload IS NOT NULL
                           AND herald.payload_segment(s.payload) = payloads_held_by.number)
               THEN 'scheduled'
           WHEN EXISTS (SELECT FROM herald.message AS m
                         WHERE m.payload IS NOT NULL
                           AND m.pos > (SELECT b.counted_to FROM herald.book AS b)
                           AND herald.payload_segment(m.payload) = payloads_held_by.number)
               THEN 'uncounted'
           END
$$;
COMMENT ON FUNCTION herald.payloads_held_by(bigint) IS
    'Why herald.payload_<number> must stay. open: payloads are, or will be, begun in it; uploads: some are pending or not sent yet; messages, scheduled, uncounted: messages that are kept, scheduled or not counted have payloads in it; NULL: it may go';

CREATE VIEW herald.payload_segments AS
SELECT t.number, pg_catalog.pg_total_relation_size(t.chunks) AS disk_bytes, p.payloads, p.bytes,
       herald.payloads_held_by(t.number) AS held_by
  FROM herald.payload_tables() AS t
 CROSS JOIN LATERAL (SELECT count(*), coalesce(sum(p.bytes), 0)::bigint FROM herald.payload AS p
                      WHERE p.segment = t.number) AS p (payloads, bytes);
COMMENT ON VIEW herald.payload_segments IS 'The tables that the contents of payloads are in, and why each is there';
COMMENT ON COLUMN herald.payload_segments.number IS 'The segment of the log that was written to when its payloads were begun';
COMMENT ON COLUMN herald.payload_segments.disk_bytes IS 'With its indexes';
COMMENT ON COLUMN herald.payload_segments.bytes IS 'Of their contents, before compression';
COMMENT ON COLUMN herald.payload_segments.held_by IS
    'open: payloads are, or will be, begun in it; uploads: some are pending or not sent yet; messages, scheduled, uncounted: messages that are kept, scheduled or not counted have payloads in it; NULL: it is being removed';

CREATE FUNCTION herald.free_chunks(payload uuid, segment bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_free_chunks';
COMMENT ON FUNCTION herald.free_chunks(uuid, bigint) IS
    'Deletes the chunks of a payload of that segment; the caller has locked its row';

CREATE FUNCTION herald.keep_payloads(now timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT int := 16;
    seen int := 0;
    due record;
    delivery timestamptz;
    next timestamptz;
BEGIN
    PERFORM herald.require_new_snapshots();
    DELETE FROM herald.payload_audit AS a
     WHERE a.at < (SELECT now - least(r.max_age, '1000 years') FROM herald.retention AS r WHERE r.topics = '*');
    -- Whoever is sending one has its row locked; when he has committed, the statements below see it.
    FOR due IN
        SELECT p.id, p.segment, p.state FROM herald.payload AS p
         WHERE p.expires_at <= now ORDER BY p.expires_at LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        seen := seen + 1;
        SELECT max(s.deliver_at) INTO delivery FROM herald.scheduled AS s WHERE s.payload = due.id;
        IF due.state = 'complete' AND EXISTS (SELECT FROM herald.message AS m WHERE m.payload = due.id) THEN
            UPDATE herald.payload AS p SET expires_at = NULL WHERE p.id = due.id;
        ELSIF due.state = 'complete' AND delivery IS NOT NULL THEN
            UPDATE herald.payload AS p
               SET expires_at = greatest(delivery, now) + current_setting('herald.upload_timeout')::interval
             WHERE p.id = due.id;
        ELSE
            PERFORM herald.free_chunks(due.id, due.segment);
            UPDATE herald.payload AS p SET state = 'expired', hash_state = NULL, expires_at = NULL
             WHERE p.id = due.id;
        END IF;
    END LOOP;
    IF seen = most THEN
        RETURN 0;
    END IF;
    SELECT min(p.expires_at) INTO next FROM herald.payload AS p;
    RETURN CASE WHEN next IS NOT NULL THEN 1000 * greatest(1, extract(epoch FROM next - now)) END;
END
$$;
COMMENT ON FUNCTION herald.keep_payloads(timestamptz) IS
    'Lets go of payloads whose time has come and that are in no message; returns after how many milliseconds it is to be called again, NULL: never';

CREATE FUNCTION herald.remove_payloads(number bigint) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_remove_payloads';
COMMENT ON FUNCTION herald.remove_payloads(bigint) IS
    'Drops herald.payload_<number> with the payloads of it, if nothing needs it and nobody uses it just now; otherwise false';

CREATE FUNCTION herald.remove_payloads() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
    again bigint;
BEGIN
    PERFORM herald.require_new_snapshots();
    FOR number IN
        SELECT t.number FROM herald.payload_tables() AS t
         WHERE herald.payloads_held_by(t.number) IS NULL ORDER BY t.number
    LOOP
        BEGIN
            IF NOT herald.remove_payloads(number) THEN
                again := 1000;
            END IF;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            RAISE WARNING 'herald.payload_% cannot be removed: %', number, SQLERRM;
        END;
    END LOOP;
    RETURN again;
END
$$;
COMMENT ON FUNCTION herald.remove_payloads() IS
    'Drops the tables of chunks that nothing needs; returns after how many milliseconds it is to be called again, NULL: they are gone';

-- What pg_dump sees, as herald.restore: always empty. Rows without start are complete payloads,
-- the others their chunks.
CREATE TABLE herald.payload_restore (
    payload uuid NOT NULL,
    segment bigint NOT NULL,
    content_type text,
    compression text,
    bytes bigint NOT NULL,
    stored_bytes bigint,
    chunks bigint,
    digest bytea,
    owner name,
    created_at timestamptz,
    completed_at timestamptz,
    accessed_at timestamptz,
    start bigint,
    checksum bigint,
    data bytea
);
COMMENT ON TABLE herald.payload_restore IS 'Where pg_restore puts payloads and their chunks; always empty';

CREATE FUNCTION herald.payload_restored() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_payload_restored';
COMMENT ON FUNCTION herald.payload_restored() IS 'Puts a dumped payload, or a chunk of one, back';

CREATE TRIGGER payload_restored BEFORE INSERT ON herald.payload_restore
    FOR EACH ROW EXECUTE FUNCTION herald.payload_restored();
ALTER TABLE herald.payload_restore ENABLE ALWAYS TRIGGER payload_restored;

SELECT pg_catalog.pg_extension_config_dump('herald.payload_restore', $$WHERE false UNION ALL
    SELECT id, segment, content_type, compression, bytes, stored_bytes, chunks, digest, owner,
           created_at, completed_at, accessed_at, NULL, NULL, NULL
    FROM herald.payload WHERE state = 'complete' UNION ALL
    SELECT c.payload, p.segment, NULL, NULL, c.bytes, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
           c.start, c.checksum, c.data
    FROM herald.payload_chunk AS c JOIN herald.payload AS p ON p.id = c.payload
    WHERE p.state = 'complete'$$);
