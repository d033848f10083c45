"""G8: sending and reading leave nothing behind that an old snapshot would keep alive."""

import pytest

MESSAGES = 5000
TOPICS = 4
FOLD_INTERVAL = 1024  # positions between two folds of the counters


def dead_tuples(connection):
    return connection.execute(
        """SELECT coalesce(sum((pgstattuple(c.oid)).dead_tuple_count), 0)
             FROM pg_class AS c
            WHERE c.relnamespace = 'herald'::regnamespace AND c.relkind = 'r'"""
    ).fetchone()[0]


def test_work_under_an_old_snapshot_leaves_no_dead_rows(cluster, database):
    with cluster.connect(database) as worker, cluster.connect(database, autocommit=False) as old:
        worker.execute("CREATE EXTENSION pgstattuple")
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM herald.messages")

        after, seen = 0, 0
        for number in range(MESSAGES):
            worker.execute(
                "SELECT herald.send_message('a', NULL, 'x', topic => %s)",
                [f"t:{number % TOPICS}"],
            )
            if number % 100 == 99:
                page = worker.execute(
                    "SELECT pos FROM herald.read('*', %s, 1000)", [after]
                ).fetchall()
                after, seen = page[-1][0], seen + len(page)

        assert seen == MESSAGES
        counted = worker.execute("SELECT sum(messages) FROM herald.topics").fetchone()[0]
        assert counted == MESSAGES
        # What is left is the counters' own: a row a topic and two for how far, per fold.
        folds = MESSAGES // FOLD_INTERVAL + 1
        assert dead_tuples(worker) <= folds * (TOPICS + 2)


@pytest.mark.tier("plain")
def test_copy_folds_its_own_counters(cluster, database):
    """Without the engine a load pays for counting itself: the next sender and the view have nothing to catch up."""
    with cluster.connect(database) as connection:
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'bulk', 'x' FROM generate_series(1, 20000)"
        )
        uncounted = connection.execute(
            "SELECT count(*) FROM herald.message, herald.book WHERE pos > counted_to"
        ).fetchone()[0]
        assert uncounted < FOLD_INTERVAL
        counted = connection.execute(
            "SELECT messages, last_pos FROM herald.topics WHERE name = 'bulk'"
        ).fetchone()
        assert counted == (20000, connection.execute("SELECT herald.horizon()").fetchone()[0])
