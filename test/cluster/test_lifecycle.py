"""The extension comes, goes and comes again; databases are cloned and renamed; buses of different
databases have nothing to do with one another."""

import psycopg
import pytest


def send(connection, content="hello", topic="news"):
    return connection.execute(
        "SELECT herald.send_message('a', NULL, %s, topic => %s)", [content, topic]
    ).fetchone()[0]


def contents(connection, topics="*"):
    rows = connection.execute("SELECT content FROM herald.read(%s, 0, 10000)", [topics])
    return [content for (content,) in rows]


def test_drop_and_create_again(cluster, database):
    """In the same session and in another one that has used the first installation."""
    with cluster.connect(database) as one, cluster.connect(database) as two:
        for connection in (one, two):
            send(connection)
            connection.execute("SELECT herald.drop_topic('news')")
            send(connection, topic="other")
        one.execute("DROP EXTENSION pg_herald")
        with pytest.raises(psycopg.errors.InvalidSchemaName):
            send(two)
        one.execute("CREATE EXTENSION pg_herald")
        send(two, "from two")
        send(one, "from one")
        one.execute("SELECT herald.start_segment()")
        send(two, "in the second segment")
        assert contents(one) == contents(two) == ["from two", "from one", "in the second segment"]
        one.execute("DROP EXTENSION pg_herald")
        assert one.execute("SELECT to_regnamespace('herald')").fetchone()[0] is None


def test_create_is_undone_by_rollback(cluster):
    name = cluster.create_database(extensions=())
    try:
        with cluster.connect(name) as connection:
            connection.execute("BEGIN")
            connection.execute("CREATE EXTENSION pg_herald")
            send(connection)
            connection.execute("ROLLBACK")
            connection.execute("CREATE EXTENSION pg_herald")
            send(connection, "second")
            assert contents(connection) == ["second"]
    finally:
        cluster.drop_database(name)


def test_a_watched_table_keeps_the_extension_from_being_dropped(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute("CREATE TABLE item (number int)")
        connection.execute("SELECT herald.watch('item', 'items')")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            connection.execute("DROP EXTENSION pg_herald")
        connection.execute("DROP EXTENSION pg_herald CASCADE")
        connection.execute("INSERT INTO item VALUES (1)")


def test_segments_made_later_belong_to_the_extension(cluster, database):
    with cluster.connect(database) as connection:
        for _ in range(3):
            connection.execute("SELECT herald.start_segment()")
            send(connection)
        assert len(contents(connection)) == 3
        loose = connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE i.inhparent = 'herald.message'::regclass AND NOT EXISTS (SELECT FROM pg_depend d"
            " WHERE d.objid = c.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass)"
        ).fetchall()
        assert loose == []
        connection.execute("DROP EXTENSION pg_herald")


def test_a_segment_whose_beginning_was_rolled_back_does_no_harm(cluster, database):
    with cluster.connect(database) as connection:
        for _ in range(3):
            connection.execute("BEGIN")
            connection.execute("SELECT herald.start_segment()")
            connection.execute("ROLLBACK")
        connection.execute("INSERT INTO herald.message (topic, content) VALUES ('news', 'inserted')")
        send(connection, "sent")
        assert contents(connection) == ["inserted", "sent"]


def test_a_cloned_database_is_a_bus_of_its_own(cluster, database):
    with cluster.connect(database) as connection:
        send(connection, "before")
        connection.execute("CREATE TABLE item (number int)")
        connection.execute("SELECT herald.watch('item', 'items')")
    clone = cluster.create_database(template=database)
    try:
        with cluster.connect(database) as one, cluster.connect(clone) as two:
            # An open sender in the one is no hindrance in the other.
            one.execute("BEGIN")
            send(one, "one")
            two.execute("SET lock_timeout = '10s'")
            two.execute("INSERT INTO item VALUES (1)")
            send(two, "two")
            one.execute("COMMIT")
            assert contents(one) == ["before", "one"]
            assert contents(two, "news") == ["before", "two"]
            assert len(contents(two, "items")) == 1
            positions = two.execute("SELECT pos FROM herald.read('*')").fetchall()
            assert positions == sorted(set(positions))
    finally:
        cluster.drop_database(clone)


def test_a_renamed_database(cluster, database):
    with cluster.connect(database) as connection:
        send(connection, "before")
    with cluster.connect() as admin:
        admin.execute(f"ALTER DATABASE {database} RENAME TO renamed")
        try:
            with cluster.connect("renamed") as connection:
                send(connection, "after")
                assert contents(connection) == ["before", "after"]
        finally:
            admin.execute(f"ALTER DATABASE renamed RENAME TO {database}")


def test_other_encodings_are_refused_by_name(cluster):
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with cluster.connect("latin") as connection:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="UTF8"):
                connection.execute("CREATE EXTENSION pg_herald")
    finally:
        cluster.drop_database("latin")
