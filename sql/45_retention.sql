-- Retention: how long messages stay. A topic's messages go from its beginning on: its start position
-- moves, which readers respect at once and are told of (herald.gap, a notice of herald.read).

CREATE TABLE herald.retention (
    topics text COLLATE "C" PRIMARY KEY,
    max_age interval,
    max_messages bigint,
    max_bytes bigint
);
COMMENT ON TABLE herald.retention IS
    'Limits of topics and patterns; for a topic the most specific row counts. Change it by herald.set_retention';
COMMENT ON COLUMN herald.retention.max_bytes IS 'Of the contents, as in herald.topics';
SELECT pg_catalog.pg_extension_config_dump('herald.retention', '');

CREATE FUNCTION herald.rules_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_rules_changed';
COMMENT ON FUNCTION herald.rules_changed() IS 'Tells the keeper, when the transaction ends, that the rules have changed';

CREATE TRIGGER rules_changed AFTER INSERT OR UPDATE OR DELETE ON herald.retention
    FOR EACH STATEMENT EXECUTE FUNCTION herald.rules_changed();

CREATE FUNCTION herald.require_pattern(topics text) RETURNS void
    LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'herald_require_pattern';
COMMENT ON FUNCTION herald.require_pattern(text) IS 'Error unless this is a topic or a pattern';

CREATE FUNCTION herald.set_retention(
    topics text, max_age interval DEFAULT NULL, max_messages bigint DEFAULT NULL,
    max_bytes bigint DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong text := CASE WHEN max_age <= '0' THEN format('max_age is %s', max_age)
                       WHEN max_messages <= 0 THEN format('max_messages is %s', max_messages)
                       WHEN max_bytes <= 0 THEN format('max_bytes is %s', max_bytes) END;
BEGIN
    PERFORM herald.require_pattern(set_retention.topics);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong || '; a limit must be above zero'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave a limit out to have none; herald.drop_topic removes all messages.';
    END IF;
    INSERT INTO herald.retention AS r (topics, max_age, max_messages, max_bytes)
    VALUES (set_retention.topics, set_retention.max_age, set_retention.max_messages,
            set_retention.max_bytes)
        ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE
       SET max_age = excluded.max_age, max_messages = excluded.max_messages,
           max_bytes = excluded.max_bytes;
END
$$;
COMMENT ON FUNCTION herald.set_retention(text, interval, bigint, bigint) IS
    'Limits what is kept of each topic that matches; without limits everything is kept. Of several rules for a topic the most specific counts';

CREATE FUNCTION herald.reset_retention(topics text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.require_pattern(reset_retention.topics);
    DELETE FROM herald.retention AS r WHERE r.topics = reset_retention.topics;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION herald.reset_retention(text) IS
    'Removes what set_retention said of exactly this topic or pattern: the next less specific rule counts; false if there was nothing';

CREATE FUNCTION herald.retention_for(topic text) RETURNS herald.retention
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r FROM herald.retention AS r
     WHERE herald.matches(r.topics, retention_for.topic)
     ORDER BY r.topics = retention_for.topic DESC,
              length(translate(r.topics, '*?', '')) DESC,
              length(replace(r.topics, '*', '')) - length(r.topics) DESC, r.topics
     LIMIT 1
$$;
COMMENT ON FUNCTION herald.retention_for(text) IS
    'The rule for a topic: its own, else that of the pattern with the most literal characters, then with the fewest *';

CREATE FUNCTION herald.readable_before(moment timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.pos FROM herald.mark AS k WHERE k.at <= moment ORDER BY k.at DESC LIMIT 1
$$;
COMMENT ON FUNCTION herald.readable_before(timestamptz) IS
    'A position up to which everything was readable at that time; NULL if that is not known of any';

CREATE FUNCTION herald.old_by(rule herald.retention, now timestamptz) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- The rule for all topics lets go of whole segments, so that nothing has to be looked at.
    SELECT CASE WHEN rule.topics = '*' THEN (o.pos + 1) / herald.segment_width() * herald.segment_width() - 1
                ELSE o.pos END
      FROM (SELECT herald.readable_before(now - least(rule.max_age, '1000 years'))) AS o (pos)
$$;
COMMENT ON FUNCTION herald.old_by(herald.retention, timestamptz) IS
    'The position up to which messages are too old by this rule; NULL if none are known to be';

-- enable_sort: of a topic that the planner's statistics don't know, see read.h.
CREATE FUNCTION herald.let_go(topic text, upto bigint, why text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_sort = off AS $$
DECLARE
    start bigint := coalesce((SELECT s.start_pos FROM herald.topic_start AS s
                               WHERE s.topic = let_go.topic), 0);
    last bigint;
    counted bigint := least(upto, (SELECT b.counted_to FROM herald.book AS b));
    gone bigint;
    part herald.topic_segment;
    rest_from bigint;
    part_messages bigint;
    part_bytes bigint;
    part_inline bigint;
BEGIN
    SELECT m.pos INTO last FROM herald.message AS m
     WHERE (m.topic, m.pos) > (let_go.topic, start) AND (m.topic, m.pos) <= (let_go.topic, counted)
       AND m.pos > start AND m.pos <= counted
     ORDER BY m.topic DESC, m.pos DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO herald.topic_start AS s (topic, start_pos, why) VALUES (let_go.topic, last, why)
        ON CONFLICT ON CONSTRAINT topic_start_pkey DO UPDATE
       SET start_pos = excluded.start_pos, why = excluded.why;
    WITH whole AS (
        DELETE FROM herald.topic_segment AS c
         WHERE c.topic = let_go.topic AND c.last_pos <= last RETURNING c.messages
    )
    SELECT coalesce(sum(messages), 0) INTO gone FROM whole;
    SELECT c.* INTO part FROM herald.topic_segment AS c
     WHERE c.topic = let_go.topic AND c.first_pos <= last;
    IF NOT FOUND THEN
        RETURN gone;
    END IF;
    SELECT count(*), coalesce(sum(herald.content_bytes(m.content, m.payload)), 0),
           coalesce(sum(octet_length(m.content)), 0)
      INTO part_messages, part_bytes, part_inline
      FROM herald.message AS m
     WHERE (m.topic, m.pos) >= (let_go.topic, part.first_pos)
       AND (m.topic, m.pos) <= (let_go.topic, last)
       AND m.pos >= part.first_pos AND m.pos <= last;
    SELECT m.pos INTO STRICT rest_from FROM herald.message AS m
     WHERE (m.topic, m.pos) > (let_go.topic, last)
       AND (m.topic, m.pos) <= (let_go.topic, part.last_pos)
       AND m.pos > last AND m.pos <= part.last_pos
     ORDER BY m.topic, m.pos LIMIT 1;
    UPDATE herald.topic_segment AS c
       SET messages = c.messages - part_messages, bytes = c.bytes - part_bytes,
           inline_bytes = c.inline_bytes - part_inline, first_pos = rest_from
     WHERE c.topic = let_go.topic AND c.segment = part.segment;
    RETURN gone + part_messages;
END
$$;
COMMENT ON FUNCTION herald.let_go(text, bigint, text) IS
    'Moves the start of a topic behind its last counted message up to a position; returns how many messages went. The caller has taken the books';

CREATE FUNCTION herald.let_go_of(topics text[], kept bigint[], why text) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
    part record;
    with_payloads herald.topic_segment[];
BEGIN
    -- What is dropped is not archived.
    IF why = 'retention' AND EXISTS (SELECT FROM herald.archive) THEN
        kept := herald.only_archived(topics, kept);
    END IF;
    -- What has gone of a topic in whole segments needs no look at its messages.
    WITH whole AS (
        DELETE FROM herald.topic_segment AS c
         USING unnest(topics, kept) AS t (topic, kept)
         WHERE c.topic = t.topic AND c.last_pos < t.kept RETURNING c.topic, c.last_pos, c.messages
    ), starts AS (
        INSERT INTO herald.topic_start AS s (topic, start_pos, why)
        SELECT w.topic, max(w.last_pos), let_go_of.why FROM whole AS w GROUP BY w.topic
            ON CONFLICT ON CONSTRAINT topic_start_pkey DO UPDATE
           SET start_pos = excluded.start_pos, why = excluded.why
    )
    SELECT coalesce(sum(w.messages), 0) INTO gone FROM whole AS w;
    with_payloads := ARRAY(SELECT c FROM unnest(topics, kept) AS t (topic, kept)
                             JOIN herald.topic_segment AS c ON c.topic = t.topic
                            WHERE c.first_pos < t.kept AND c.payloads_from IS NOT NULL);
    FOR part IN
        SELECT t.topic, t.kept FROM unnest(topics, kept) AS t (topic, kept)
         WHERE EXISTS (SELECT FROM herald.topic_segment AS c
                        WHERE c.topic = t.topic AND c.first_pos < t.kept)
    LOOP
        gone := gone + herald.let_go(part.topic, part.kept - 1, why);
    END LOOP;
    -- Of those that have gone whole the trigger of the counters has noted it.
    PERFORM herald.note_payloads_let_go(
                b.payloads_from, b.payloads_to,
                sum(herald.room(b.bytes - c.bytes, b.messages - c.messages))::bigint)
       FROM unnest(with_payloads) AS b
       JOIN herald.topic_segment AS c ON c.topic = b.topic AND c.segment = b.segment
      WHERE c.messages < b.messages GROUP BY b.payloads_from, b.payloads_to;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION herald.let_go_of(text[], bigint[], text) IS
    'Moves the start of each of these topics to the first message to be kept, or, by retention, that is not archived and should be; returns how many messages went. The caller has taken the books';

CREATE FUNCTION herald.first_kept(
    topic text, first bigint, messages bigint, bytes bigint, rule herald.retention, now timestamptz
) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_sort = off AS $$
DECLARE
    kept bigint := greatest(first, herald.old_by(rule, now) + 1);
    pos bigint;
BEGIN
    IF messages > rule.max_messages THEN
        SELECT m.pos INTO pos FROM herald.message AS m
         WHERE (m.topic, m.pos) >= (first_kept.topic, first)
           AND (m.topic, m.pos) <= (first_kept.topic, 9007199254740991) AND m.pos >= first
         ORDER BY m.topic, m.pos OFFSET messages - rule.max_messages LIMIT 1;
        kept := greatest(kept, pos);
    END IF;
    IF bytes > rule.max_bytes THEN
        SELECT s.pos + 1 INTO pos
          FROM (SELECT m.pos, sum(herald.content_bytes(m.content, m.payload)) OVER (ORDER BY m.topic, m.pos) AS bytes
                  FROM herald.message AS m
                 WHERE (m.topic, m.pos) >= (first_kept.topic, first)
                   AND (m.topic, m.pos) <= (first_kept.topic, 9007199254740991)
                   AND m.pos >= first) AS s
         WHERE s.bytes >= first_kept.bytes - rule.max_bytes
         ORDER BY s.pos LIMIT 1;
        kept := greatest(kept, pos);
    END IF;
    RETURN kept;
END
$$;
COMMENT ON FUNCTION herald.first_kept(text, bigint, bigint, bigint, herald.retention, timestamptz) IS
    'Where a topic begins by its rule: with this first position, so many messages and bytes of contents';

CREATE FUNCTION herald.enforce_retention(now timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    topics text[];
    kept bigint[];
BEGIN
    -- Nobody sees messages that have expired: there is nothing to be told of.
    DELETE FROM herald.topic_segment AS c WHERE c.expires_at <= now AND c.expires_at < 'infinity';
    -- Which rule is a topic's is asked only of those that are beyond one that matches.
    SELECT array_agg(d.topic), array_agg(herald.first_kept(
               d.topic, d.first_pos, d.messages, d.bytes, d.rule, now))
      INTO topics, kept
      FROM (SELECT c.*, r.rule
              FROM (SELECT s.topic, min(s.first_pos) AS first_pos, sum(s.messages)::bigint AS messages,
                           sum(s.bytes)::bigint AS bytes
                      FROM herald.topic_segment AS s GROUP BY s.topic) AS c
              JOIN (SELECT r AS rule, herald.old_by(r, now) AS old
                      FROM herald.retention AS r OFFSET 0) AS r
                ON c.first_pos <= r.old OR c.messages > (r.rule).max_messages
                   OR c.bytes > (r.rule).max_bytes
             WHERE herald.matches((r.rule).topics, c.topic)
            OFFSET 0) AS d
     WHERE (herald.retention_for(d.topic)).topics = (d.rule).topics;
    PERFORM herald.want_archived(topics, kept);
    RETURN herald.let_go_of(topics, kept, 'retention');
END
$$;
COMMENT ON FUNCTION herald.enforce_retention(timestamptz) IS
    'Lets go of what the rules no longer keep; returns how many messages. The caller has taken the books';

CREATE FUNCTION herald.take_counted_books() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF herald.has_unsettled() THEN
        RAISE EXCEPTION 'cannot trim in a transaction that has sent messages'
            USING ERRCODE = 'active_sql_transaction', HINT = 'Commit first.';
    END IF;
    PERFORM herald.require_new_snapshots();
    PERFORM herald.take_books(true);
    WHILE herald.fold() LOOP
    END LOOP;
END
$$;
COMMENT ON FUNCTION herald.take_counted_books() IS 'Takes the books and brings them up to now';

CREATE FUNCTION herald.trim_to(topics text[], kept bigint[]) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM herald.archive_before(topics, kept);
    gone := herald.let_go_of(topics, kept, 'retention');
    IF gone > 0 THEN
        PERFORM herald.announce_reset();
    END IF;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION herald.trim_to(text[], bigint[]) IS
    'Lets each of these topics begin with the first message to be kept, after archiving what leaves; returns how many messages went. The caller has taken the books';

CREATE FUNCTION herald.trim(topics text, before bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.require_pattern(trim.topics);
    IF trim.before IS NULL THEN
        RAISE EXCEPTION 'before is NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Give the first position to keep.';
    END IF;
    PERFORM herald.take_counted_books();
    RETURN (SELECT herald.trim_to(array_agg(c.topic), array_agg(trim.before))
              FROM (SELECT DISTINCT s.topic FROM herald.topic_segment AS s
                     WHERE herald.matches(trim.topics, s.topic) AND s.first_pos < trim.before) AS c);
END
$$;
COMMENT ON FUNCTION herald.trim(text, bigint) IS
    'Lets go of the messages of a topic or a pattern below a position; returns how many';

CREATE FUNCTION herald.trim(topics text, before timestamptz) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_sort = off AS $$
BEGIN
    PERFORM herald.require_pattern(trim.topics);
    IF trim.before IS NULL THEN
        RAISE EXCEPTION 'before is NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Give the time from which on messages are kept.';
    END IF;
    PERFORM herald.take_counted_books();
    RETURN (
    SELECT herald.trim_to(array_agg(c.topic), array_agg(coalesce(kept.pos, c.last_pos + 1)))
      FROM (SELECT s.topic, min(s.first_pos) AS first_pos, max(s.last_pos) AS last_pos
              FROM herald.topic_segment AS s
             WHERE herald.matches(trim.topics, s.topic) GROUP BY s.topic) AS c
      LEFT JOIN LATERAL (SELECT m.pos FROM herald.message AS m
                          WHERE (m.topic, m.pos) >= (c.topic, c.first_pos)
                            AND (m.topic, m.pos) <= (c.topic, c.last_pos)
                            AND m.pos >= c.first_pos AND m.pos <= c.last_pos
                            AND m.at >= trim.before
                          ORDER BY m.topic, m.pos LIMIT 1) AS kept ON true);
END
$$;
COMMENT ON FUNCTION herald.trim(text, timestamptz) IS
    'Lets go of the messages of a topic or a pattern up to the first that was sent at this time or later; returns how many';

CREATE FUNCTION herald.keep(now timestamptz) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    begun CONSTANT timestamptz := clock_timestamp();
    rules bigint;
    shortest interval;
    expiry timestamptz;
    due numeric;  -- in seconds
BEGIN
    IF NOT herald.take_books(false) THEN
        RETURN 1000;
    END IF;
    PERFORM herald.mark_time(now);
    PERFORM herald.enforce_retention(now);
    PERFORM herald.forget_segments();
    SELECT count(*), min(r.max_age) INTO rules, shortest FROM herald.retention AS r;
    SELECT min(c.expires_at) INTO expiry FROM herald.topic_segment AS c WHERE c.expires_at < 'infinity';
    due := least(
        CASE WHEN rules > 0 THEN greatest(1, least(10, extract(epoch FROM shortest) / 10)) END,
        CASE WHEN expiry IS NOT NULL THEN greatest(10, extract(epoch FROM expiry - now)) END,
        CASE WHEN EXISTS (SELECT FROM herald.purge) THEN 1 END);
    IF due IS NULL THEN
        RETURN NULL;
    END IF;
    -- With very many topics rounds are long: they take a twentieth of all time at most.
    RETURN 1000 * greatest(due, 20 * extract(epoch FROM clock_timestamp() - begun));
END
$$;
COMMENT ON FUNCTION herald.keep(timestamptz) IS
    'A round of the keeper; returns after how many milliseconds the next is due, NULL if the clock makes no difference';

CREATE FUNCTION herald.maintain_at(now timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone regclass;
BEGIN
    PERFORM herald.require_new_snapshots();
    PERFORM herald.rotate(now);  -- before the books are taken, as drop_topic does
    PERFORM herald.make_segment((herald.next_free_position() / herald.segment_width() + 1)
                                * herald.segment_width());
    PERFORM herald.take_books(true);
    WHILE herald.fold() LOOP
    END LOOP;
    PERFORM herald.mark_time(now);
    PERFORM herald.enforce_retention(now);
    WHILE herald.catch_up_archives() LOOP
        PERFORM herald.enforce_retention(now);
    END LOOP;
    FOR gone IN SELECT r.segment FROM herald.removable_segments() AS r LOOP
        BEGIN
            PERFORM herald.remove_segment(gone);
        EXCEPTION WHEN dependent_objects_still_exist OR object_in_use THEN
            RAISE WARNING '% cannot be removed: %', gone, SQLERRM;
        END;
    END LOOP;
    WHILE herald.keep_payloads(now) = 0 LOOP
    END LOOP;
    PERFORM herald.look_at_payloads();
    PERFORM herald.remove_payloads();
    FOR gone IN
        SELECT w.waste FROM herald.waste_tables() AS w (waste)
         UNION ALL
        SELECT r.leftover FROM herald.rewrite_tables() AS r (leftover)
         WHERE NOT (SELECT e.loaded FROM herald.engine_state() AS e)
    LOOP
        BEGIN
            PERFORM herald.drop_waste(gone);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            RAISE WARNING '% cannot be dropped: %', gone, SQLERRM;
        END;
    END LOOP;
    PERFORM herald.rewrite_table(r.original) FROM herald.rewritable_tables() AS r;
    PERFORM herald.forget_segments();
END
$$;
COMMENT ON FUNCTION herald.maintain_at(timestamptz) IS 'herald.maintain() by another clock';

CREATE OR REPLACE FUNCTION herald.maintain() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM herald.maintain_at(clock_timestamp());
END
$$;
COMMENT ON FUNCTION herald.maintain() IS
    'Does by hand what happens now and then by itself: counts the topics up to now, lets go of what is kept no longer, begins a new segment of the log if it is time, drops those that nothing needs, rewrites those of which little is kept. Run it in a transaction of its own: it may lock the log until the end';
