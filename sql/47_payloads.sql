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
COMMENT ON COLUMN herald.payload.expires_at IS 'Then it goes if it is in no message; NULL: it goes with its messages, or has gone';
CREATE INDEX payload_segment_idx ON herald.payload (segment);
CREATE INDEX payload_expires_at_idx ON herald.payload (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE herald.payload_chunk (
    payload uuid NOT NULL,
    start bigint NOT NULL,
    bytes int NOT NULL,
    checksum bigint NOT NULL,
    data bytea NOT NULL
);
ALTER TABLE herald.payload_chunk ALTER COLUMN data SET STORAGE EXTERNAL, ALTER data SET STATISTICS 0;
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
        EXECUTE pg_catalog.format('ALTER TABLE herald.payload_%s ALTER data SET STATISTICS 0', number);
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
COMMENT ON COLUMN herald.payloads.chunks IS 'In how many pieces it is stored; 0: it has no content, or is in no table of chunks any more';
COMMENT ON COLUMN herald.payloads.expected_bytes IS 'How many the upload is to have, as it said';
COMMENT ON COLUMN herald.payloads.expires_at IS 'Then it goes if it is in no message; NULL: it goes with its messages, or has gone';
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
      FROM herald.member_tables('^payload_[0-9]+$') AS m (member) JOIN pg_class AS c ON c.oid = m.member
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
        SELECT p.id, p.segment, p.state, p.bytes FROM herald.payload AS p
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
            PERFORM herald.note_payloads_let_go(due.segment, due.segment, herald.room(due.bytes, 1));
            UPDATE herald.payload AS p
               SET state = CASE WHEN p.state = 'error' THEN 'error' ELSE 'expired' END,
                   hash_state = NULL, expires_at = NULL
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

-- Rewriting: a table of which little is needed is written anew, as segments of the log are. Which
-- payloads are needed is looked at when so much was let go of that it may pay.

CREATE TABLE herald.payload_let_go (
    payloads_from bigint,
    payloads_to bigint,
    bytes bigint NOT NULL,
    PRIMARY KEY (payloads_from, payloads_to)
) WITH (fillfactor = 45);
COMMENT ON TABLE herald.payload_let_go IS
    'Bytes of messages that were let go of and had payloads in these tables of chunks, as herald.topic_segment says, and of payloads that expired';

CREATE TABLE herald.payload_book (
    segment bigint PRIMARY KEY,
    seen_bytes bigint NOT NULL,
    file_bytes bigint NOT NULL,
    kept_bytes bigint NOT NULL
);
COMMENT ON TABLE herald.payload_book IS 'What was found when it was looked which payloads of a table of chunks are needed';
COMMENT ON COLUMN herald.payload_book.seen_bytes IS 'How much had been let go of by then';
COMMENT ON COLUMN herald.payload_book.file_bytes IS 'In the table''s files, since it was looked at first, or rewritten';
COMMENT ON COLUMN herald.payload_book.kept_bytes IS 'Of these, what is needed';

CREATE FUNCTION herald.room(bytes bigint, chunks bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT room.bytes + 200 * room.chunks
$$;
COMMENT ON FUNCTION herald.room(bigint, bigint) IS 'About what so many bytes in so many chunks take in a table of them';

CREATE FUNCTION herald.note_payloads_let_go(payloads_from bigint, payloads_to bigint, bytes bigint)
    RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO herald.payload_let_go AS g (payloads_from, payloads_to, bytes)
    VALUES (note_payloads_let_go.payloads_from, note_payloads_let_go.payloads_to, note_payloads_let_go.bytes)
        ON CONFLICT ON CONSTRAINT payload_let_go_pkey DO UPDATE SET bytes = g.bytes + excluded.bytes
$$;
COMMENT ON FUNCTION herald.note_payloads_let_go(bigint, bigint, bigint) IS
    'Notes that so many bytes of payloads in these tables may be needed no longer';

CREATE FUNCTION herald.counters_deleted() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.note_payloads_let_go(c.payloads_from, c.payloads_to, sum(herald.room(c.bytes, c.messages))::bigint)
       FROM gone AS c WHERE c.payloads_from IS NOT NULL GROUP BY c.payloads_from, c.payloads_to;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION herald.counters_deleted() IS 'Notes payloads of messages that were let go of';

CREATE TRIGGER counters_deleted AFTER DELETE ON herald.topic_segment
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION herald.counters_deleted();

CREATE FUNCTION herald.unkept_payloads(segment bigint) RETURNS SETOF uuid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.id FROM herald.payload AS p
     WHERE p.segment = unkept_payloads.segment AND p.state = 'complete'
       AND (p.expires_at IS NULL OR EXISTS (SELECT FROM herald.message AS m WHERE m.payload = p.id))
       AND NOT EXISTS (SELECT FROM herald.messages AS m WHERE m.payload = p.id)
       AND NOT EXISTS (SELECT FROM herald.scheduled AS s WHERE s.payload = p.id)
$$;
COMMENT ON FUNCTION herald.unkept_payloads(bigint) IS
    'Payloads of herald.payload_<segment> that were sent, and none of whose messages is kept';

CREATE FUNCTION herald.expire_unkept(segment bigint) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found CONSTANT uuid[] := ARRAY(SELECT herald.unkept_payloads(expire_unkept.segment));
    locked uuid[];
BEGIN
    -- Who sends one again has locked its row before he looked whether it can be read; of what he has
    -- committed by now the next statement knows.
    locked := ARRAY(SELECT p.id FROM herald.payload AS p WHERE p.id = ANY (found) FOR UPDATE SKIP LOCKED);
    UPDATE herald.payload AS p SET state = 'expired', expires_at = NULL
     WHERE p.id = ANY (locked)
       AND p.id IN (SELECT u.id FROM herald.unkept_payloads(expire_unkept.segment) AS u (id));
    RETURN cardinality(locked) = cardinality(found);
END
$$;
COMMENT ON FUNCTION herald.expire_unkept(bigint) IS
    'Lets go of payloads of herald.payload_<segment> that were sent, and none of whose messages is kept; false if some are in use just now. Their chunks go when the table is rewritten or dropped';

CREATE FUNCTION herald.look_at_payloads() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    part record;
    in_files bigint;
    done boolean;
    again bigint;
BEGIN
    PERFORM herald.require_new_snapshots();
    IF NOT EXISTS (SELECT FROM herald.payload_let_go) THEN
        RETURN NULL;
    END IF;
    IF NOT herald.take_books(false) THEN
        RETURN 1000;
    END IF;
    DELETE FROM herald.payload_let_go AS g
     WHERE NOT EXISTS (SELECT FROM herald.payload_tables() AS t
                        WHERE t.number BETWEEN g.payloads_from AND g.payloads_to);
    -- A sixteenth: so the looks at a table cost little beside the uploads to it.
    FOR part IN
        SELECT t.number, g.bytes
          FROM herald.payload_tables() AS t
         CROSS JOIN LATERAL (SELECT sum(g.bytes)::bigint FROM herald.payload_let_go AS g
                              WHERE t.number BETWEEN g.payloads_from AND g.payloads_to) AS g (bytes)
          LEFT JOIN herald.payload_book AS b ON b.segment = t.number
         WHERE g.bytes - coalesce(b.seen_bytes, 0) > coalesce(b.file_bytes, 0) / 16
           AND NOT herald.is_small(t.chunks)
    LOOP
        CONTINUE WHEN coalesce(herald.payloads_held_by(part.number), 'open') = 'open';
        SELECT sum(herald.room(p.stored_bytes, p.chunks)) INTO in_files
          FROM herald.payload AS p WHERE p.segment = part.number;
        done := herald.expire_unkept(part.number);
        INSERT INTO herald.payload_book AS b (segment, seen_bytes, file_bytes, kept_bytes)
        SELECT part.number, CASE WHEN done THEN part.bytes ELSE 0 END, coalesce(in_files, 0),
               coalesce(sum(herald.room(p.stored_bytes, p.chunks)), 0)
          FROM herald.payload AS p WHERE p.segment = part.number AND p.state IN ('pending', 'complete')
            ON CONFLICT ON CONSTRAINT payload_book_pkey DO UPDATE
           SET seen_bytes = greatest(b.seen_bytes, excluded.seen_bytes), kept_bytes = excluded.kept_bytes;
        IF NOT done THEN
            again := 1000;
        END IF;
    END LOOP;
    RETURN again;
END
$$;
COMMENT ON FUNCTION herald.look_at_payloads() IS
    'Looks which payloads are needed in tables of which little may be; returns after how many milliseconds it is to be called again, NULL: when more has been let go of';

CREATE FUNCTION herald.rewritable_payloads() RETURNS TABLE (number bigint, chunks regclass)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.number, t.chunks FROM herald.payload_tables() AS t
     WHERE (EXISTS (SELECT FROM herald.payload_book AS b
                     WHERE b.segment = t.number AND 2 * b.kept_bytes <= b.file_bytes
                       AND NOT herald.is_small(t.chunks))
            OR EXISTS (SELECT FROM herald.purge AS p WHERE 'payload_' || t.number = ANY (p.tables)))
       AND herald.payloads_held_by(t.number) <> 'open'
$$;
COMMENT ON FUNCTION herald.rewritable_payloads() IS
    'Tables of chunks that are to be written anew: no payloads are begun in them, and little of them is needed, or some have to be purged';

CREATE FUNCTION herald.rewritable_tables()
    RETURNS TABLE (original regclass, number bigint, has_payloads boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.segment, s.number, false FROM herald.rewritable_segments() AS s
     UNION ALL
    SELECT p.chunks, p.number, true FROM herald.rewritable_payloads() AS p
$$;
COMMENT ON FUNCTION herald.rewritable_tables() IS 'Segments and tables of payloads that are to be written anew';

CREATE FUNCTION herald.payloads_rewritten(number bigint, chunks bigint, bytes bigint, last_purge bigint)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    in_files CONSTANT bigint := herald.room(payloads_rewritten.bytes, payloads_rewritten.chunks);
    name CONSTANT text := 'payload_' || payloads_rewritten.number;
BEGIN
    UPDATE herald.payload_book AS b
       SET file_bytes = in_files, kept_bytes = in_files
     WHERE b.segment = payloads_rewritten.number;
    UPDATE herald.purge AS p SET tables = array_remove(p.tables, name)
     WHERE p.id <= payloads_rewritten.last_purge AND name = ANY (p.tables);
END
$$;
COMMENT ON FUNCTION herald.payloads_rewritten(bigint, bigint, bigint, bigint) IS
    'Notes that a table of payloads has been rewritten, with so many chunks, for the purges up to this one. The caller has taken the books';

CREATE FUNCTION herald.payloads_gone(number bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- expires_at: the chunks of an upload that was just given up may be in the file still.
    EXECUTE format('UPDATE herald.payload AS p SET stored_bytes = 0, chunks = 0'
                   ' WHERE p.segment = $1 AND p.chunks > 0 AND p.state IN (''expired'', ''error'')'
                   ' AND p.expires_at IS NULL'
                   ' AND NOT EXISTS (SELECT FROM herald.%I AS c WHERE c.payload = p.id)',
                   'payload_' || payloads_gone.number)
      USING payloads_gone.number;
END
$$;
COMMENT ON FUNCTION herald.payloads_gone(bigint) IS
    'Notes which payloads are in no table of chunks any more: those that were let go of and have none in one that has just been rewritten. The caller lets nobody write to it';

CREATE VIEW herald.payload_segments AS
SELECT t.number, pg_catalog.pg_total_relation_size(t.chunks) AS disk_bytes, p.payloads, p.bytes,
       h.held_by, w.rewriting,
       CASE WHEN h.held_by IS NULL OR w.rewriting
            THEN herald.users_of(ARRAY[t.chunks], false, w.rewriting) END AS sessions
  FROM herald.payload_tables() AS t
 CROSS JOIN LATERAL (SELECT herald.payloads_held_by(t.number)) AS h (held_by)
 CROSS JOIN LATERAL (SELECT t.number IN (SELECT r.number FROM herald.rewritable_payloads() AS r)) AS w (rewriting)
 CROSS JOIN LATERAL (SELECT count(*), coalesce(sum(p.bytes), 0)::bigint FROM herald.payload AS p
                      WHERE p.segment = t.number AND p.state IN ('pending', 'complete')) AS p (payloads, bytes);
COMMENT ON VIEW herald.payload_segments IS 'The tables that the contents of payloads are in, and why each is there';
COMMENT ON COLUMN herald.payload_segments.number IS 'The segment of the log that was written to when its payloads were begun';
COMMENT ON COLUMN herald.payload_segments.disk_bytes IS 'With its indexes';
COMMENT ON COLUMN herald.payload_segments.payloads IS 'Complete ones, and uploads that go on';
COMMENT ON COLUMN herald.payload_segments.bytes IS 'Of their contents, before compression';
COMMENT ON COLUMN herald.payload_segments.held_by IS
    'open: payloads are, or will be, begun in it; uploads: some are pending or not sent yet; messages, scheduled, uncounted: messages that are kept, scheduled or not counted have payloads in it; NULL: it is being removed';
COMMENT ON COLUMN herald.payload_segments.rewriting IS
    'It is to be written anew, because little of it is needed, or for a purge';
COMMENT ON COLUMN herald.payload_segments.sessions IS
    'Whom the removal or the rewriting waits for: who has it open; of a rewriting also who has had a snapshot for long';

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
