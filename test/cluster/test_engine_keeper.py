"""The keeper, the background worker that counts and lets go of old messages by itself: when it runs,
that it ends, and that nobody has to care about it."""

import pytest

from herald import wait_until

pytestmark = pytest.mark.tier("engine")


def keepers(connection, database=None):
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'herald keeper'"
        " AND datname = coalesce(%s, current_database())", [database]
    ).fetchall()  # fmt: skip
    return [pid for (pid,) in rows]


def contents(connection, topic):
    return [
        content
        for (content,) in connection.execute("SELECT content FROM herald.read(%s)", [topic])
    ]


def send(connection, topic, *texts):
    for text in texts:
        connection.execute("SELECT herald.send_message(NULL, NULL, %s, topic => %s)", [text, topic])


def uncounted(connection):
    (count,) = connection.execute(
        "SELECT count(*) FROM herald.message, herald.book WHERE pos > counted_to"
    ).fetchone()
    return count


def test_old_messages_go_by_themselves(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.set_retention('short', max_age => '1 s')")
        connection.execute("SELECT herald.set_retention('few', max_messages => 2)")
        send(connection, "short", "old")
        send(connection, "long", "stays")
        send(connection, "few", "1", "2", "3")
        wait_until(lambda: contents(connection, "short") == [], what="the end of an old message")
        wait_until(lambda: contents(connection, "few") == ["2", "3"], what="the end of a surplus one")
        assert contents(connection, "long") == ["stays"]
        told = connection.execute("SELECT why FROM herald.gap('short', 0)").fetchone()
        assert told == ("retention",)


def test_a_rule_concerns_what_was_there_before(cluster, database):
    with cluster.connect(database) as connection:
        send(connection, "few", "1", "2", "3")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        wait_until(lambda: contents(connection, "few") == ["3"], what="the rule's effect")
        connection.execute("SELECT herald.reset_retention('few')")
        send(connection, "few", "4", "5")
        connection.execute("SELECT herald.set_retention('other', max_messages => 1)")
        send(connection, "other", "1", "2")
        wait_until(lambda: contents(connection, "other") == ["2"], what="the other rule's effect")
        assert contents(connection, "few") == ["3", "4", "5"]


def test_a_load_is_counted_soon(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'bulk', 'x' FROM generate_series(1, 150000)"
        )
        wait_until(lambda: uncounted(connection) == 0, what="all to be counted")
        counted = connection.execute("SELECT messages FROM herald.topic_segment").fetchone()
        assert counted == (150_000,)


def test_the_books_stay_small_without_vacuum(cluster, database):
    """Rows of counters are written anew in each round, on the page that they are on."""
    with cluster.connect(database) as connection:
        connection.execute("ALTER TABLE herald.topic_segment SET (autovacuum_enabled = off)")
        sizes = []
        for _ in range(20):
            connection.execute(
                "INSERT INTO herald.message (topic, content)"
                " SELECT 'topic:' || n, 'x' FROM generate_series(1, 500) AS n"
            )
            connection.execute("SELECT herald.maintain()")
            [[size]] = connection.execute("SELECT pg_table_size('herald.topic_segment')")
            sizes.append(size)
        # Another session's snapshot may have kept old rows for a round, not more.
        assert max(sizes) <= 3 * sizes[0]


def test_a_terminated_keeper_comes_back(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "1", "2")
        wait_until(lambda: contents(connection, "few") == ["2"], what="the keeper")
        for pid in keepers(connection):
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        send(connection, "few", "3")
        wait_until(lambda: contents(connection, "few") == ["3"], what="the next keeper")


def test_who_keeps_the_books_by_hand_is_not_disturbed(cluster, database):
    with cluster.connect(database) as connection, cluster.connect(database) as other:
        send(connection, "few", "1", "2")
        other.execute("BEGIN; SELECT herald.take_books(true)")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "3")  # nobody waits
        assert contents(connection, "few") == ["1", "2", "3"]
        other.execute("COMMIT")
        wait_until(lambda: contents(connection, "few") == ["3"], what="the keeper's turn")


def test_a_database_with_a_keeper_is_dropped_and_copied(cluster):
    source = cluster.create_database()
    with cluster.connect(source) as connection:
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "1", "2")
        wait_until(lambda: contents(connection, "few") == ["2"], what="the keeper")
        assert keepers(connection)
    copy = f"{source}_copy"
    with cluster.connect() as admin:
        admin.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{source}"')
        with cluster.connect(copy) as connection:
            send(connection, "few", "3")
            wait_until(lambda: contents(connection, "few") == ["3"], what="the copy's keeper")
        admin.execute(f'DROP DATABASE "{copy}"')
        admin.execute(f'DROP DATABASE "{source}"')
        assert not keepers(admin, source)


def test_drop_extension_ends_the_keeper(cluster):
    database = cluster.create_database()
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "1", "2")
        wait_until(lambda: contents(connection, "few") == ["2"], what="the keeper")
        connection.execute("DROP EXTENSION pg_herald CASCADE")
        wait_until(lambda: not keepers(connection), what="the keeper's end")
        connection.execute("CREATE EXTENSION pg_herald")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "3", "4")
        wait_until(lambda: contents(connection, "few") == ["4"], what="the new keeper")
    cluster.drop_database(database)


def test_drop_extension_and_the_keeper_do_not_wait_for_each_other(cluster):
    """The keeper holds one table of the bus and wants the next; DROP EXTENSION has the next."""
    database = cluster.create_database()
    with cluster.connect(database) as connection, cluster.connect(database) as other:
        send(connection, "few", "1", "2")
        other.execute("BEGIN; LOCK TABLE herald.mark IN ACCESS EXCLUSIVE MODE")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        waits = (
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE NOT granted AND backend_type = 'herald keeper' AND datname = current_database()"
        )
        wait_until(lambda: connection.execute(waits).fetchone() == (1,), what="the keeper's wait")
        other.execute("DROP EXTENSION pg_herald; COMMIT")
        wait_until(lambda: not keepers(connection), what="the keeper's end")
    cluster.drop_database(database)


def test_without_work_it_ends(cluster, database):
    with cluster.connect(database) as connection:
        send(connection, "t", "1")
        connection.execute("SELECT herald.set_retention('t', max_messages => 10)")
        wait_until(lambda: keepers(connection), what="a keeper")
        connection.execute("SELECT herald.reset_retention('t')")
        wait_until(lambda: not keepers(connection), what="its end")
