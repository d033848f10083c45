-- Archives: what matches a topic or pattern is written to files or to a table before it leaves the
-- log by retention or trim. Nobody sees messages that have expired, and drop_topic is meant to do
-- away with messages: neither are archived.
--
-- An archive writes when something that it does not have yet is to leave, at most once in
-- herald.archive_interval, and then all that is there: so a topic that keeps little makes few files,
-- and what is kept for a year is not written before its time. Rows of herald.archive are written
-- under herald.take_books().

CREATE TABLE herald.archive (
    topics text COLLATE "C" PRIMARY KEY,
    directory text COLLATE "C" UNIQUE,
    target text COLLATE "C",
    role text COLLATE "C" NOT NULL,
    archived_to bigint NOT NULL,
    wanted_to bigint NOT NULL DEFAULT 0,
    files bigint NOT NULL DEFAULT 0,
    messages bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    last_at timestamptz,
    next_at timestamptz,
    last_error text,
    told_at timestamptz,
    CHECK ((directory IS NULL) <> (target IS NULL))
);
COMMENT ON TABLE herald.archive IS 'Archives. Change them by herald.archive_to and herald.stop_archive';
COMMENT ON COLUMN herald.archive.target IS 'A table, as SQL writes its name';
COMMENT ON COLUMN herald.archive.role IS 'Who made it, and must have the rights to write there';
COMMENT ON COLUMN herald.archive.archived_to IS 'What matches and is not above this position need not be kept for the archive';
COMMENT ON COLUMN herald.archive.wanted_to IS 'Something up to this position waits for the archive, to leave';
COMMENT ON COLUMN herald.archive.next_at IS 'It does not write by itself before';
SELECT pg_catalog.pg_extension_config_dump('herald.archive', '');

CREATE TRIGGER archives_changed AFTER INSERT OR DELETE ON herald.archive
    FOR EACH STATEMENT EXECUTE FUNCTION herald.rules_changed();

CREATE FUNCTION herald.archive_to(topics text, directory text) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_archive_to_directory';
COMMENT ON FUNCTION herald.archive_to(text, text) IS
    'Has messages written to files in a directory of the server before they leave the log. Needs the rights of pg_write_server_files';

CREATE FUNCTION herald.archive_to(topics text, target regclass) RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_archive_to_table';
COMMENT ON FUNCTION herald.archive_to(text, regclass) IS
    'Has messages inserted into a table with the columns of herald.messages before they leave the log, and into a column payload_content bytea, if there is one, what is in their payloads. Needs the right to INSERT';

CREATE FUNCTION herald.add_archive(topics text, directory text, target text, role text, archived_to bigint)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known herald.archive;
BEGIN
    SELECT a.* INTO known FROM herald.archive AS a WHERE a.topics = add_archive.topics;
    IF FOUND AND (known.directory, known.target)
                 IS NOT DISTINCT FROM (add_archive.directory, add_archive.target) THEN
        UPDATE herald.archive AS a SET role = add_archive.role, next_at = NULL
         WHERE a.topics = add_archive.topics;
        RETURN;
    ELSIF FOUND THEN
        RAISE EXCEPTION 'topics "%" are archived to % already', topics,
            coalesce(known.directory, known.target)
            USING ERRCODE = 'duplicate_object', HINT = 'herald.stop_archive ends that.';
    END IF;
    SELECT a.* INTO known FROM herald.archive AS a WHERE a.directory = add_archive.directory;
    IF FOUND THEN
        RAISE EXCEPTION 'directory "%" has the archive of "%"', known.directory, known.topics
            USING ERRCODE = 'duplicate_object', HINT = 'Give each archive a directory of its own.';
    END IF;
    INSERT INTO herald.archive AS a (topics, directory, target, role, archived_to)
    VALUES (add_archive.topics, add_archive.directory, add_archive.target, add_archive.role,
            add_archive.archived_to);
END
$$;
COMMENT ON FUNCTION herald.add_archive(text, text, text, text, bigint) IS
    'Notes an archive that has been checked. The caller has taken the books';

CREATE FUNCTION herald.stop_archive(topics text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.require_pattern(stop_archive.topics);
    PERFORM herald.take_books(true);
    DELETE FROM herald.archive AS a WHERE a.topics = stop_archive.topics;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION herald.stop_archive(text) IS
    'Ends the archive of exactly this topic or pattern: what was written stays, what is kept is not held for it any more; false if there was none';

CREATE FUNCTION herald.write_archive(
    topics text, directory text, target text, role text, after bigint,
    OUT upto bigint, OUT messages bigint, OUT bytes bigint, OUT file boolean
)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_write_archive';
COMMENT ON FUNCTION herald.write_archive(text, text, text, text, bigint) IS
    'Writes the next messages above a position, a file at most; upto: how far it has come. The caller has taken the books';

CREATE FUNCTION herald.advance_archive(topics text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    archive herald.archive;
    written record;
BEGIN
    SELECT a.* INTO STRICT archive FROM herald.archive AS a
     WHERE a.topics = advance_archive.topics;
    SELECT w.* INTO STRICT written
      FROM herald.write_archive(archive.topics, archive.directory, archive.target, archive.role,
                                archive.archived_to) AS w;
    UPDATE herald.archive AS a
       SET archived_to = written.upto, files = a.files + written.file::int,
           messages = a.messages + written.messages, bytes = a.bytes + written.bytes,
           last_at = CASE WHEN written.messages > 0 THEN clock_timestamp() ELSE a.last_at END,
           next_at = CASE WHEN written.upto >= a.wanted_to
                          THEN clock_timestamp() + current_setting('herald.archive_interval')::interval
                          WHEN written.upto = archive.archived_to
                          THEN clock_timestamp() + interval '10 seconds' END,
           last_error = NULL, told_at = NULL
     WHERE a.topics = archive.topics;
    RETURN written.upto > archive.archived_to;
END
$$;
COMMENT ON FUNCTION herald.advance_archive(text) IS
    'Writes the next batch of an archive; false if it has everything. The caller has taken the books';

CREATE FUNCTION herald.try_archive(topics text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    hint text;
    tell boolean;
BEGIN
    RETURN herald.advance_archive(topics);
EXCEPTION WHEN active_sql_transaction THEN
    RETURN false;
WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    SELECT a.told_at IS NULL OR a.told_at <= now - interval '10 minutes'
           OR a.last_error IS DISTINCT FROM SQLERRM
      INTO tell FROM herald.archive AS a WHERE a.topics = try_archive.topics;
    UPDATE herald.archive AS a
       SET last_error = SQLERRM, next_at = now + interval '10 seconds',
           told_at = CASE WHEN tell THEN now ELSE a.told_at END
     WHERE a.topics = try_archive.topics;
    IF tell THEN
        RAISE WARNING 'messages of "%" wait for their archive: %', topics, SQLERRM
            USING ERRCODE = SQLSTATE, HINT = hint;
    END IF;
    RETURN false;
END
$$;
COMMENT ON FUNCTION herald.try_archive(text) IS
    'As advance_archive; if that fails, notes and tells it now and then';

CREATE FUNCTION herald.only_archived(topics text[], kept bigint[]) RETURNS bigint[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(least(t.kept, (SELECT min(a.archived_to) + 1 FROM herald.archive AS a
                                     WHERE herald.matches(a.topics, t.topic)))
                     ORDER BY t.number)
      FROM unnest(only_archived.topics, only_archived.kept) WITH ORDINALITY AS t (topic, kept, number)
$$;
COMMENT ON FUNCTION herald.only_archived(text[], bigint[]) IS
    'Where these topics may begin at most, if they are to begin there: behind what their archives have';

CREATE FUNCTION herald.missing_archives(topics text[], kept bigint[])
    RETURNS TABLE (archive text, upto bigint)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.topics, max(least(t.kept - 1, c.last_pos))
      FROM herald.archive AS a
      JOIN unnest(missing_archives.topics, missing_archives.kept) AS t (topic, kept) ON herald.matches(a.topics, t.topic)
      JOIN herald.topic_segment AS c ON c.topic = t.topic
     WHERE c.first_pos < t.kept AND c.last_pos > a.archived_to AND t.kept - 1 > a.archived_to
     GROUP BY a.topics
$$;
COMMENT ON FUNCTION herald.missing_archives(text[], bigint[]) IS
    'Archives that do not have all that leaves if these topics begin there, and up to where they need to write';

CREATE FUNCTION herald.want_archived(topics text[], kept bigint[]) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE herald.archive AS a SET wanted_to = m.upto
      FROM herald.missing_archives(want_archived.topics, want_archived.kept) AS m
     WHERE a.topics = m.archive AND a.wanted_to < m.upto
$$;
COMMENT ON FUNCTION herald.want_archived(text[], bigint[]) IS
    'Notes what the archives need to write so that these topics can begin there. The caller has taken the books';

CREATE FUNCTION herald.archive_before(topics text[], kept bigint[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN SELECT m.* FROM herald.missing_archives(topics, kept) AS m LOOP
        WHILE missing.upto > (SELECT a.archived_to FROM herald.archive AS a
                               WHERE a.topics = missing.archive)
              AND herald.advance_archive(missing.archive) LOOP
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION herald.archive_before(text[], bigint[]) IS
    'Archives all that leaves if these topics begin there, or fails. The caller has taken the books';

CREATE FUNCTION herald.keep_archives() RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
    archive text;
    moved boolean := false;
BEGIN
    IF NOT EXISTS (SELECT FROM herald.archive AS a WHERE a.wanted_to > a.archived_to) THEN
        RETURN NULL;
    END IF;
    IF NOT herald.take_books(false) THEN
        RETURN 1000;
    END IF;
    FOR archive IN SELECT a.topics FROM herald.archive AS a
                    WHERE a.wanted_to > a.archived_to AND (a.next_at IS NULL OR a.next_at <= now)
    LOOP
        moved := herald.try_archive(archive) OR moved;
    END LOOP;
    RETURN CASE WHEN moved THEN 0
                ELSE (SELECT greatest(0, 1000 * extract(epoch FROM min(a.next_at) - now))
                        FROM herald.archive AS a WHERE a.wanted_to > a.archived_to) END;
END
$$;
COMMENT ON FUNCTION herald.keep_archives() IS
    'A round of the keeper: a batch of each archive that it is time for; returns after how many milliseconds the next is due';

CREATE FUNCTION herald.catch_up_archives() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    archive text;
    moved boolean := false;
BEGIN
    FOR archive IN SELECT a.topics FROM herald.archive AS a WHERE a.wanted_to > a.archived_to LOOP
        moved := herald.try_archive(archive) OR moved;
    END LOOP;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION herald.catch_up_archives() IS
    'A batch of each archive that something waits for; whether one has got further. The caller has taken the books';

CREATE FUNCTION herald.waits_for_archive(number bigint) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM herald.archive AS a
                     JOIN herald.topic_segment AS c ON c.last_pos > a.archived_to AND c.first_pos <= a.wanted_to
                    WHERE a.wanted_to > a.archived_to AND c.segment = waits_for_archive.number
                      AND herald.matches(a.topics, c.topic))
$$;
COMMENT ON FUNCTION herald.waits_for_archive(bigint) IS
    'Whether a segment has messages that would leave if an archive had them';

CREATE FUNCTION herald.waiting_messages(topics text, after bigint, upto bigint) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(CASE
               WHEN c.first_pos > waiting_messages.after AND c.last_pos <= waiting_messages.upto THEN c.messages
               ELSE (SELECT count(*) FROM herald.message AS m
                      WHERE (m.topic, m.pos) > (c.topic, waiting_messages.after)
                        AND (m.topic, m.pos) <= (c.topic, waiting_messages.upto)
                        AND m.pos BETWEEN c.first_pos AND c.last_pos) END), 0)::bigint
      FROM herald.topic_segment AS c
     WHERE c.last_pos > waiting_messages.after AND c.first_pos <= waiting_messages.upto
       AND herald.matches(waiting_messages.topics, c.topic)
$$;
COMMENT ON FUNCTION herald.waiting_messages(text, bigint, bigint) IS
    'How many messages of topics stand above one position and up to another';

CREATE VIEW herald.archives AS
SELECT a.topics, coalesce(a.directory, a.target) AS destination, a.archived_to,
       CASE WHEN a.wanted_to > a.archived_to THEN herald.waiting_messages(a.topics, a.archived_to, a.wanted_to)
            ELSE 0 END AS behind,
       a.files, a.messages, a.bytes, a.last_at, a.last_error
  FROM herald.archive AS a;
COMMENT ON VIEW herald.archives IS 'Archives, how far they have come, and what is wrong with them';
COMMENT ON COLUMN herald.archives.destination IS 'A directory of the server, or a table';
COMMENT ON COLUMN herald.archives.archived_to IS 'The archive has all messages up to this position';
COMMENT ON COLUMN herald.archives.behind IS 'How many messages wait in the log because they are not archived';
COMMENT ON COLUMN herald.archives.bytes IS 'Of lines and payloads before they are compressed; in a table, of contents';
COMMENT ON COLUMN herald.archives.last_at IS 'When it wrote last';
COMMENT ON COLUMN herald.archives.last_error IS 'Why it cannot write: what is to leave stays as long';

CREATE FUNCTION herald.read_archive(
    directory text, topics text DEFAULT '*', after bigint DEFAULT 0, max bigint DEFAULT NULL
) RETURNS SETOF herald.messages
    LANGUAGE c VOLATILE ROWS 10000 AS 'MODULE_PATHNAME', 'herald_read_archive';
COMMENT ON FUNCTION herald.read_archive(text, text, bigint, bigint) IS
    'The messages above a position in the files of an archive, ascending, each once; also those that have expired since. Needs the rights of pg_read_server_files';

CREATE FUNCTION herald.read_archived_payload(
    directory text, payload uuid, "offset" bigint DEFAULT 0, length bigint DEFAULT NULL
) RETURNS bytea
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_read_archived_payload';
COMMENT ON FUNCTION herald.read_archived_payload(text, uuid, bigint, bigint) IS
    'The content, or so many bytes of it, of a payload whose message is in the files of an archive. All of it is read and verified. Needs the rights of pg_read_server_files';
