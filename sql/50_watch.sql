-- Watching tables.

CREATE FUNCTION herald.publish_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_publish_change';
COMMENT ON FUNCTION herald.publish_change() IS 'The trigger of watched tables; put there by herald.watch';

CREATE FUNCTION herald.unwatch(watched regclass) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name name;
    found_one boolean := false;
BEGIN
    IF watched IS NULL THEN
        RAISE EXCEPTION 'watched is NULL'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Give the name of a table.';
    END IF;
    FOR name IN SELECT t.tgname FROM pg_trigger AS t
                 WHERE t.tgrelid = watched AND t.tgname IN ('herald_watch', 'herald_watch_truncate')
                   AND NOT t.tgisinternal AND t.tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, watched);
        found_one := true;
    END LOOP;
    RETURN found_one;
END
$$;
COMMENT ON FUNCTION herald.unwatch(regclass) IS
    'Stops publishing the changes of a table; false if it was not watched. For the table''s owner';

CREATE FUNCTION herald.watch(
    watched regclass, topic text, events text DEFAULT 'insert,update,delete',
    columns text[] DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind "char";
    event text;
    row_events text[] := '{}';
    truncates boolean := false;
    missing text;
    arguments text;
BEGIN
    IF watched IS NULL OR events IS NULL THEN
        RAISE EXCEPTION '% is NULL', CASE WHEN watched IS NULL THEN 'watched' ELSE 'events' END
            USING ERRCODE = 'null_value_not_allowed', HINT = 'herald.watch(table, topic)';
    END IF;
    PERFORM herald.require_topic(watch.topic);
    SELECT c.relkind INTO kind FROM pg_class AS c WHERE c.oid = watched;
    IF kind IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', watched
            USING ERRCODE = 'wrong_object_type', HINT = 'Only tables can be watched.';
    END IF;
    IF (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = watched) = 'herald'::regnamespace THEN
        RAISE EXCEPTION '% belongs to the bus itself', watched
            USING ERRCODE = 'wrong_object_type', HINT = 'Subscribe to its topics instead.';
    END IF;
    FOREACH event IN ARRAY string_to_array(lower(events), ',') LOOP
        event := btrim(event);
        IF event = 'truncate' THEN
            truncates := true;
        ELSIF event IN ('insert', 'update', 'delete') THEN
            row_events := row_events || event;
        ELSE
            RAISE EXCEPTION 'event "%" is not known', event
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'events is a list of insert, update, delete, truncate.';
        END IF;
    END LOOP;
    IF cardinality(row_events) = 0 AND NOT truncates THEN
        RAISE EXCEPTION 'events is empty'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'events is a list of insert, update, delete, truncate.';
    END IF;
    IF cardinality(columns) = 0 THEN
        RAISE EXCEPTION 'columns is empty'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it NULL for all columns.';
    END IF;
    SELECT coalesce(c, 'NULL') INTO missing FROM unnest(columns) AS c
     WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                        WHERE a.attrelid = watched AND a.attname = c
                          AND a.attnum > 0 AND NOT a.attisdropped)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% has no column "%"', watched, missing
            USING ERRCODE = 'undefined_column', HINT = 'Column names are case-sensitive here.';
    END IF;

    PERFORM herald.unwatch(watched);
    arguments := (SELECT string_agg(quote_literal(a), ', ' ORDER BY n)
                    FROM unnest(watch.topic || columns) WITH ORDINALITY AS x (a, n));
    IF cardinality(row_events) > 0 THEN
        EXECUTE format('CREATE TRIGGER herald_watch AFTER %s ON %s FOR EACH ROW '
                       'EXECUTE FUNCTION herald.publish_change(%s)',
                       array_to_string(row_events, ' OR '), watched, arguments);
    END IF;
    IF truncates THEN
        EXECUTE format('CREATE TRIGGER herald_watch_truncate AFTER TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION herald.publish_change(%s)',
                       watched, arguments);
    END IF;
END
$$;
COMMENT ON FUNCTION herald.watch(regclass, text, text, text[]) IS
    'Publishes the row changes of a table to a topic; again with other arguments: replaces. For the table''s owner';
