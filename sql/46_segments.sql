-- Segments of the log: when a new one begins, what holds an old one back, removing it.

CREATE FUNCTION herald.segment_tables() RETURNS TABLE (
    number bigint, segment regclass, attached boolean, pending boolean
)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(c.relname, 9)::bigint, c.oid::regclass, i.inhrelid IS NOT NULL,
           coalesce(i.inhdetachpending, false)
      FROM pg_class AS c
      LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
     WHERE c.relnamespace = 'herald'::regnamespace AND c.relkind = 'r'
       AND c.relname ~ '^message_[0-9]+$'
       AND EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
$$;
COMMENT ON FUNCTION herald.segment_tables() IS
    'The tables of the segments, as long as they belong to the extension; attached: part of the log; pending: detaching it was begun';

CREATE FUNCTION herald.held_by(number bigint) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
           WHEN next.position < segment.first_pos THEN 'ahead'
           WHEN next.position <= segment.last_pos THEN 'open'
           WHEN herald.waits_for_archive(held_by.number) THEN 'archive'
           WHEN EXISTS (SELECT FROM herald.topic_segment AS c WHERE c.segment = held_by.number)
               THEN 'messages'
           WHEN (SELECT b.counted_to FROM herald.book AS b) < segment.last_pos THEN 'uncounted'
           WHEN EXISTS (SELECT FROM herald.senders AS s WHERE s.low_position <= segment.last_pos)
               THEN 'senders'
           END
      FROM (SELECT held_by.number * herald.segment_width(),
                   (held_by.number + 1) * herald.segment_width() - 1) AS segment (first_pos, last_pos),
           (SELECT e.next_position FROM herald.engine_state() AS e) AS next (position)
$$;
COMMENT ON FUNCTION herald.held_by(bigint) IS
    'Why this segment must stay. ahead: nothing is in it yet; open: positions are handed out in it; archive: some are to be archived before they leave; messages: some are kept; uncounted: there may be some; senders: an open transaction has positions in it; NULL: it may go';

CREATE FUNCTION herald.removable_segments() RETURNS TABLE (
    number bigint, segment regclass, attached boolean, pending boolean
)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.* FROM herald.segment_tables() AS t
     WHERE herald.held_by(t.number) IS NULL
       AND NOT EXISTS (SELECT FROM herald.segment_tables() AS p
                        WHERE p.pending AND herald.held_by(p.number) IS NOT NULL)
$$;
COMMENT ON FUNCTION herald.removable_segments() IS
    'Segments that nothing needs; none while somebody detaches another by hand. Whoever removes them has taken the books';

CREATE FUNCTION herald.users_of(tables regclass[], pending boolean, rewriting boolean) RETURNS int[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(DISTINCT u.pid ORDER BY u.pid)
      FROM (SELECT l.pid FROM pg_locks AS l
             WHERE l.locktype = 'relation' AND l.granted
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
               AND l.relation = ANY (users_of.tables)
            UNION ALL
            SELECT a.pid FROM pg_stat_activity AS a
             WHERE users_of.pending AND a.datname = current_database()
               AND age(a.backend_xmin) >= (SELECT age(i.xmin) FROM pg_inherits AS i
                                            WHERE i.inhrelid = users_of.tables[1])
            UNION ALL
            SELECT a.pid FROM pg_stat_activity AS a
             WHERE users_of.rewriting AND a.datname = current_database()
               AND a.backend_xmin IS NOT NULL AND a.xact_start < clock_timestamp() - interval '1 second'
           ) AS u
     WHERE u.pid <> pg_backend_pid()
$$;
COMMENT ON FUNCTION herald.users_of(regclass[], boolean, boolean) IS
    'Sessions that have one of these tables open; if detaching the first was begun, those too whose snapshot is older; if it is to be rewritten, those that have had one for longer than a second';

CREATE TABLE herald.purge (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topics text COLLATE "C" NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    segments bigint[] NOT NULL,
    tables text[] NOT NULL
);
COMMENT ON TABLE herald.purge IS 'What herald.purge() has asked for and is not done yet';
COMMENT ON SEQUENCE herald.purge_id_seq IS 'Numbers purges in the order of their commits';
COMMENT ON COLUMN herald.purge.segments IS 'Those that have to be rewritten';
COMMENT ON COLUMN herald.purge.tables IS 'Other tables that have to be: scheduled, payload_<n>';

CREATE FUNCTION herald.is_small(original regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_total_relation_size(is_small.original)
               < pg_size_bytes(current_setting('herald.segment_size')) / 16
$$;
COMMENT ON FUNCTION herald.is_small(regclass) IS 'Whether a table is too small for a rewriting to pay';

CREATE FUNCTION herald.is_sparse(number bigint, segment regclass) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- 200: about what a message takes beside its content, with its index entries.
    SELECT NOT herald.is_small(is_sparse.segment)
       AND 2 * (SELECT sum(c.inline_bytes) + 200 * sum(c.messages) FROM herald.topic_segment AS c
                 WHERE c.segment = is_sparse.number)
           <= (SELECT b.inline_bytes + 200 * b.messages FROM herald.segment_book AS b
                WHERE b.segment = is_sparse.number)
$$;
COMMENT ON FUNCTION herald.is_sparse(bigint, regclass) IS
    'Whether rewriting this segment pays: at least half of it is kept no longer, and it is not small';

CREATE FUNCTION herald.rewritable_segments() RETURNS TABLE (number bigint, segment regclass)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.number, t.segment FROM herald.segment_tables() AS t
     WHERE t.attached AND NOT t.pending AND herald.held_by(t.number) IN ('messages', 'archive')
       AND (SELECT b.counted_to FROM herald.book AS b) >= (t.number + 1) * herald.segment_width() - 1
       AND NOT EXISTS (SELECT FROM herald.senders AS s
                        WHERE s.low_position < (t.number + 1) * herald.segment_width())
       AND (herald.is_sparse(t.number, t.segment)
            OR EXISTS (SELECT FROM herald.purge AS p WHERE t.number = ANY (p.segments)))
$$;
COMMENT ON FUNCTION herald.rewritable_segments() IS
    'Segments that are to be written anew: nobody writes to them, and messages in them are kept, but few, or some have to be purged';

CREATE FUNCTION herald.member_tables(pattern text) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass FROM pg_class AS c
     WHERE c.relnamespace = 'herald'::regnamespace AND c.relkind = 'r' AND c.relname ~ member_tables.pattern
       AND EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
$$;
COMMENT ON FUNCTION herald.member_tables(text) IS
    'Tables with such names (a regular expression), as long as they belong to the extension';

CREATE FUNCTION herald.rewrite_tables() RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT herald.member_tables('^rewrite_(payload_)?[0-9]+$')
$$;
COMMENT ON FUNCTION herald.rewrite_tables() IS 'The tables into which segments, and tables of payloads, are being rewritten';

CREATE FUNCTION herald.rewritten(number bigint, messages bigint, inline_bytes bigint, last_purge bigint)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE herald.segment_book AS b
       SET messages = rewritten.messages, inline_bytes = rewritten.inline_bytes
     WHERE b.segment = rewritten.number;
    UPDATE herald.purge AS p SET segments = array_remove(p.segments, rewritten.number)
     WHERE p.id <= rewritten.last_purge AND rewritten.number = ANY (p.segments);
END
$$;
COMMENT ON FUNCTION herald.rewritten(bigint, bigint, bigint, bigint) IS
    'Notes that a segment has been rewritten, with so many messages, for the purges up to this one. The caller has taken the books';

CREATE FUNCTION herald.rewrite_table(original regclass) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_rewrite_table';
COMMENT ON FUNCTION herald.rewrite_table(regclass) IS
    'Rewrites one of herald.rewritable_tables() if nobody has it open, nor a snapshot in this database, and then nobody else can open it until this transaction ends. The caller has taken the books';

CREATE FUNCTION herald.waste_tables() RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT herald.member_tables('^waste_[0-9]+$')
$$;
COMMENT ON FUNCTION herald.waste_tables() IS
    'Tables that nothing needs any more, whose disk is given back little by little';

CREATE FUNCTION herald.drop_waste(waste regclass) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_drop_waste';
COMMENT ON FUNCTION herald.drop_waste(regclass) IS
    'Drops one of herald.waste_tables() at once, or, without the engine, one of herald.rewrite_tables() that a crash has left; false: somebody has it open';

CREATE VIEW herald.waste AS
SELECT w.waste AS table_name, coalesce(pg_total_relation_size(w.waste), 0) AS disk_bytes,
       herald.users_of(ARRAY[w.waste], false, false) AS sessions
  FROM herald.waste_tables() AS w (waste);
COMMENT ON VIEW herald.waste IS
    'What was removed, and whose disk is given back little by little; herald.maintain() does it at once';
COMMENT ON COLUMN herald.waste.table_name IS 'It has the content that nothing needs any more';
COMMENT ON COLUMN herald.waste.disk_bytes IS 'Not given back yet';
COMMENT ON COLUMN herald.waste.sessions IS 'Whom that waits for: who has it open';

CREATE FUNCTION herald.forget_starts(most bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    log_start CONSTANT bigint :=
        (SELECT min(t.number) FROM herald.segment_tables() AS t) * herald.segment_width();
    forgotten_to bigint;
BEGIN
    -- Only where no message is left that they would hide.
    SELECT least(s.start_pos, log_start - 1) INTO forgotten_to
      FROM herald.topic_start AS s WHERE s.topic <> '*'
     ORDER BY s.start_pos DESC OFFSET most LIMIT 1;
    DELETE FROM herald.topic_start AS s WHERE s.start_pos <= forgotten_to AND s.topic <> '*';
    IF FOUND THEN
        INSERT INTO herald.topic_start AS s (topic, start_pos, why)
        VALUES ('*', forgotten_to, 'retention')
            ON CONFLICT ON CONSTRAINT topic_start_pkey DO UPDATE
           SET start_pos = greatest(s.start_pos, excluded.start_pos);
    END IF;
END
$$;
COMMENT ON FUNCTION herald.forget_starts(bigint) IS
    'Keeps this many starts of topics, and those that the log still needs; below the others any topic may have lost messages. The caller has taken the books';

CREATE FUNCTION herald.forget_segments() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there CONSTANT bigint[] := (SELECT array_agg(t.number) FROM herald.segment_tables() AS t);
BEGIN
    DELETE FROM herald.segment_book AS b WHERE b.segment <> ALL (there);
    IF FOUND THEN
        PERFORM herald.forget_starts(100000);
    END IF;
    UPDATE herald.purge AS p
       SET segments = ARRAY(SELECT n FROM unnest(p.segments) AS n WHERE n = ANY (there)),
           tables = ARRAY(SELECT n FROM unnest(p.tables) AS n WHERE to_regclass('herald.' || n) IS NOT NULL)
     WHERE NOT p.segments <@ there OR p.tables <> '{}';
    DELETE FROM herald.purge AS p
     WHERE p.segments = '{}' AND p.tables = '{}'
       AND NOT EXISTS (SELECT FROM herald.waste_tables()) AND NOT EXISTS (SELECT FROM herald.rewrite_tables());
END
$$;
COMMENT ON FUNCTION herald.forget_segments() IS
    'Deletes what the books say of segments that are gone, the oldest starts of topics if there are very many, and purges that are done. The caller has taken the books';

CREATE VIEW herald.segments AS
SELECT t.number, t.number * herald.segment_width() AS first_pos,
       (t.number + 1) * herald.segment_width() - 1 AS last_pos,
       pg_total_relation_size(t.segment) AS disk_bytes, c.messages, c.bytes, c.topics,
       h.held_by, w.rewriting,
       CASE WHEN h.held_by IS NULL OR w.rewriting 
            THEN herald.users_of(ARRAY[t.segment, 'herald.message'], t.pending, w.rewriting) END AS sessions
  FROM herald.segment_tables() AS t
 CROSS JOIN LATERAL (SELECT herald.held_by(t.number)) AS h (held_by)
 CROSS JOIN LATERAL (SELECT t.number IN (SELECT r.number FROM herald.rewritable_segments() AS r)) AS w (rewriting)
 CROSS JOIN LATERAL (SELECT coalesce(sum(s.messages), 0)::bigint, coalesce(sum(s.bytes), 0)::bigint,
                            count(*)
                       FROM herald.topic_segment AS s
                      WHERE s.segment = t.number) AS c (messages, bytes, topics);
COMMENT ON VIEW herald.segments IS 'The tables that the log consists of, and why each is there';
COMMENT ON COLUMN herald.segments.last_pos IS 'Its last possible position';
COMMENT ON COLUMN herald.segments.disk_bytes IS 'With its indexes';
COMMENT ON COLUMN herald.segments.messages IS 'Counted and kept';
COMMENT ON COLUMN herald.segments.bytes IS 'Of their contents';
COMMENT ON COLUMN herald.segments.topics IS 'How many topics they are of';
COMMENT ON COLUMN herald.segments.held_by IS
    'ahead, open: it is in use; archive: some wait for herald.archives; messages: some are kept; uncounted: there may be some; senders: an open transaction has positions in it; NULL: it is being removed';
COMMENT ON COLUMN herald.segments.rewriting IS
    'It is to be written anew, because little of it is kept, or for a purge';
COMMENT ON COLUMN herald.segments.sessions IS
    'Whom the removal or the rewriting waits for: who has it open, or the log; of a rewriting also who has had a snapshot for long';

CREATE FUNCTION herald.rotate(now timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
<<current>>
DECLARE
    -- So many segments, and age alone begins no more: each costs every reader a little.
    enough CONSTANT int := 100;
    number CONSTANT bigint := (SELECT e.next_position FROM herald.engine_state() AS e) / herald.segment_width();
    -- Of payloads an eighth counts: they cost readers nothing.
    bytes CONSTANT bigint := (SELECT pg_total_relation_size(t.segment) FROM herald.segment_tables() AS t
                               WHERE t.number = current.number)
        + coalesce((SELECT pg_total_relation_size(p.chunks) FROM herald.payload_tables() AS p
                     WHERE p.number = current.number), 0) / 8;
    full_size CONSTANT bigint := pg_size_bytes(current_setting('herald.segment_size'));
    -- A bulk load that is under way would have to be written again; up to a point it is waited for.
    busy CONSTANT boolean := EXISTS (SELECT FROM herald.senders AS s WHERE s.kind = 'far');
    begun timestamptz;
    at_age interval;
BEGIN
    IF bytes >= 4 * full_size OR (bytes >= full_size AND NOT busy) THEN
        PERFORM herald.start_segment();
        RETURN NULL;
    END IF;
    IF bytes >= full_size THEN
        RETURN 1000;
    END IF;
    SELECT k.at INTO begun FROM herald.mark AS k
     WHERE k.pos >= (SELECT m.pos FROM herald.message AS m
                      WHERE m.pos >= number * herald.segment_width() ORDER BY m.pos LIMIT 1)
     ORDER BY k.at LIMIT 1;
    IF NOT FOUND OR enough <= (SELECT count(*) FROM herald.segment_tables() AS t WHERE t.attached) THEN
        RETURN NULL;
    END IF;
    -- What the rule for all topics lets go of is whole segments. (There can be nine million of them:
    -- one a minute lasts for seventeen years.)
    at_age := least(
        current_setting('herald.segment_age')::interval,
        (SELECT greatest('1 minute', r.max_age / 8) FROM herald.retention AS r WHERE r.topics = '*'));
    IF now < begun + at_age THEN
        RETURN 1000 * extract(epoch FROM begun + at_age - now);
    END IF;
    IF busy AND now < begun + 2 * at_age THEN
        RETURN 1000;
    END IF;
    PERFORM herald.start_segment();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION herald.rotate(timestamptz) IS
    'Lets the log go on in a new segment if the last one is large or old enough; otherwise returns in how many milliseconds it will be old enough. NULL: not by age';

CREATE FUNCTION herald.remove_segment(segment regclass) RETURNS boolean
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'herald_remove_segment';
COMMENT ON FUNCTION herald.remove_segment(regclass) IS
    'Drops a removable segment if nobody has the log open, and then nobody else can until this transaction ends. The caller has taken the books';
