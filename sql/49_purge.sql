-- Purging: bytes of messages leave the disk, not only the sight of readers.

CREATE FUNCTION herald.purge(topics text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
    scheduled bigint;
    part record;
    found_there boolean;
    written bigint[] := '{}';
    tables text[] := '{}';
BEGIN
    PERFORM herald.require_pattern(purge.topics);
    IF herald.has_unsettled() THEN
        RAISE EXCEPTION 'cannot purge in a transaction that has sent messages'
            USING ERRCODE = 'active_sql_transaction', HINT = 'Commit first.';
    END IF;
    PERFORM herald.require_new_snapshots();
    PERFORM herald.start_segment();  -- only those that nobody writes to any more can be rewritten
    PERFORM herald.settle(herald.next_free_position() - 1);
    PERFORM herald.take_counted_books();
    UPDATE herald.payload AS p SET expires_at = NULL
     WHERE p.id IN (SELECT s.payload FROM herald.scheduled AS s WHERE herald.matches(purge.topics, s.topic));
    DELETE FROM herald.scheduled AS s WHERE herald.matches(purge.topics, s.topic);
    GET DIAGNOSTICS scheduled = ROW_COUNT;
    SELECT herald.let_go_of(array_agg(c.topic), array_agg(9007199254740991), 'dropped') INTO gone
      FROM (SELECT DISTINCT s.topic FROM herald.topic_segment AS s
             WHERE herald.matches(purge.topics, s.topic)) AS c;
    -- Also what retention has let go of before may still be there.
    FOR part IN SELECT t.number, t.segment FROM herald.segment_tables() AS t LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS m WHERE %s)', part.segment,
                       CASE WHEN purge.topics ~ '[*?]' THEN 'herald.matches($1, m.topic)'
                            ELSE 'm.topic = $1' END)
           INTO found_there USING purge.topics;
        IF found_there THEN
            written := written || part.number;
        END IF;
    END LOOP;
    -- Payloads of these topics, or of others, that no message needs, or that have expired and are
    -- in files still: they go when their tables are rewritten. Then their messages may have left
    -- the log; what says that they were sent stays.
    FOR part IN
        SELECT t.number, ARRAY(SELECT herald.unkept_payloads(t.number)) AS unkept
          FROM herald.payload_tables() AS t
    LOOP
        UPDATE herald.payload AS p SET expires_at = NULL
         WHERE p.id = ANY (part.unkept) AND p.expires_at IS NOT NULL;
        IF part.unkept <> '{}'
           OR EXISTS (SELECT FROM herald.payload AS p
                       WHERE p.segment = part.number AND p.state IN ('expired', 'error') AND p.chunks > 0)
        THEN
            tables := tables || ('payload_' || part.number);
        END IF;
    END LOOP;
    IF pg_relation_size('herald.scheduled') > 0 THEN
        tables := tables || 'scheduled'::text;
    END IF;
    INSERT INTO herald.purge (topics, segments, tables) VALUES (purge.topics, written, tables);
    PERFORM herald.announce_reset();
    RETURN gone + scheduled;
END
$$;
COMMENT ON FUNCTION herald.purge(text) IS
    'Lets go of all messages of a topic or a pattern, also those that wait for their deliver_at, and removes their bytes from the files; returns how many there were. herald.purges shows what is not done yet';

CREATE FUNCTION herald.purge_asked() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_rules_changed';
COMMENT ON FUNCTION herald.purge_asked() IS 'Wakes the keeper when the transaction ends';

CREATE TRIGGER purge_asked AFTER INSERT ON herald.purge
    FOR EACH STATEMENT EXECUTE FUNCTION herald.purge_asked();

CREATE VIEW herald.purges AS
SELECT p.topics, p.asked_at, p.segments,
       p.tables || ARRAY(SELECT c.relname::text FROM herald.waste_tables() AS w (waste)
                           JOIN pg_class AS c ON c.oid = w.waste) AS tables
  FROM herald.purge AS p;
COMMENT ON VIEW herald.purges IS
    'Purges whose bytes are not all gone yet: segments that have to be rewritten (herald.segments says whom they wait for), and other tables that have to be, or to be dropped (herald.waste)';
