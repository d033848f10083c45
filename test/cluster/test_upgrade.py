"""ALTER EXTENSION pg_herald UPDATE from every released version: the same objects as a fresh
CREATE EXTENSION, and the messages that were there. Install scripts of the past are in test/upgrade."""

import psycopg
import pytest

from herald import wait_until

RELEASED = ["0.1.0"]

OBJECTS = {
    "functions": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proacl::text,
               obj_description(p.oid, 'pg_proc')
          FROM pg_proc AS p WHERE p.pronamespace = 'herald'::regnamespace""",
    "relations": """
        SELECT c.relname, c.relkind, c.relacl::text, obj_description(c.oid, 'pg_class'),
               CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid)
                              WHEN 'i' THEN pg_get_indexdef(c.oid) END
          FROM pg_class AS c WHERE c.relnamespace = 'herald'::regnamespace""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
          LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'herald'::regnamespace AND a.attnum > 0""",
    "sequences": """
        SELECT schemaname, sequencename, data_type, start_value, min_value, max_value
          FROM pg_sequences WHERE schemaname = 'herald'""",
    "triggers": """
        SELECT t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled
          FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE c.relnamespace = 'herald'::regnamespace AND NOT t.tgisinternal""",
    "dumped": """
        SELECT c.oid::regclass::text, e.extcondition[array_position(e.extconfig, c.oid)]
          FROM pg_extension AS e JOIN pg_class AS c ON c.oid = ANY (e.extconfig)
         WHERE e.extname = 'pg_herald'""",
}


def objects(connection):
    return {
        kind: sorted(map(repr, connection.execute(query).fetchall()))
        for kind, query in OBJECTS.items()
    }


@pytest.mark.tier("engine", "plain")
@pytest.mark.parametrize("version", RELEASED)
def test_update_makes_what_create_makes(cluster, version):
    fresh = cluster.create_database()
    updated = cluster.create_database(extensions=())
    with cluster.connect(fresh) as there, cluster.connect(updated) as here:
        here.execute(f"CREATE EXTENSION pg_herald VERSION '{version}'")
        here.execute(
            "INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json)"
            " SELECT n, gen_random_uuid(), 'old', now(), 'notification', 'm' || n, 0, false"
            " FROM generate_series(1, 100) AS n"
        )
        here.execute("SELECT setval('herald.message_pos_seq', 100)")
        with pytest.raises(psycopg.errors.UndefinedTable) as refused:
            here.execute("SELECT herald.send_message('a', 'b', 'too early')")
        assert "ALTER EXTENSION pg_herald UPDATE" in refused.value.diag.message_hint

        here.execute("ALTER EXTENSION pg_herald UPDATE")
        expected, found = objects(there), objects(here)
        for kind, wanted in expected.items():
            assert found[kind] == wanted, kind

        here.execute("SELECT herald.send_message('a', NULL, 'new', topic => 'old')")
        rows = here.execute("SELECT content, pos FROM herald.read('old', 0, 1000)").fetchall()
        assert [row[0] for row in rows] == [f"m{n}" for n in range(1, 101)] + ["new"]
        assert rows[-1][1] > 100
        if cluster.engine:
            query = "SELECT dispatcher_pid IS NOT NULL FROM herald.engine"
            wait_until(lambda: here.execute(query).fetchone()[0], 30, "the dispatcher")
    for database in (fresh, updated):
        cluster.drop_database(database)
