"""After a crash no position is given out that anybody has seen before, though commits need not have
reached the disk, and nothing that was announced is in doubt."""

import psycopg
import pytest

from ear import dispatcher
from herald import Cluster, wait_until
from herald.system import run

pytestmark = pytest.mark.tier("engine")


@pytest.fixture(scope="module")
def own_cluster():
    settings = {
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",  # what is not flushed at a commit is lost for sure
        "max_prepared_transactions": 5,
    }
    with Cluster("crash", settings) as cluster:
        yield cluster


def durable_database(cluster):
    database = cluster.create_database()
    cluster.psql("CHECKPOINT", database)  # the extension at least outlives the crash
    return database


def position_of_one(connection):
    return connection.execute(
        "INSERT INTO herald.message (topic, content) VALUES ('news', 'x') RETURNING pos"
    ).fetchone()[0]


def positions_of_a_batch(connection):
    """Positions far ahead of the counter, as their own transaction sees them."""
    connection.execute(
        "SELECT count(*) FROM herald.publish_batch('batch',"
        " (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 5000) n))"
    )
    return connection.execute(
        "SELECT max(pos) FROM herald.message WHERE topic = 'batch'"
    ).fetchone()[0]


def highest_that_anybody_saw(connection):
    """Of what was committed, rolled back, or is in flight when the server goes."""
    seen = [position_of_one(connection)]
    for take in (position_of_one, positions_of_a_batch):
        connection.execute("BEGIN")
        seen.append(take(connection))
        connection.execute("ROLLBACK")
        seen.append(take(connection))
    connection.execute("BEGIN")
    seen += [position_of_one(connection), positions_of_a_batch(connection)]
    return max(seen)


def kill9(cluster):
    cluster.kill9()


def immediate_shutdown(cluster):
    cluster.stop("immediate")


@pytest.mark.parametrize("end", [kill9, immediate_shutdown])
def test_no_position_is_given_twice(own_cluster, end):
    cluster = own_cluster
    database = durable_database(cluster)
    highest = 0
    for _ in range(2):
        with cluster.connect(database) as connection:
            assert position_of_one(connection) > highest
            highest = highest_that_anybody_saw(connection)
            end(cluster)
            connection.close()
        cluster.start()
    with cluster.connect(database) as connection:
        first = position_of_one(connection)
        assert first > highest
        assert connection.execute("SELECT pos FROM herald.tail('*', 1)").fetchone()[0] == first
        assert connection.execute("SELECT * FROM herald.gap('*', %s)", [highest]).fetchone() == (
            None, None,
        )  # fmt: skip


def test_a_restore_into_a_live_bus_repeats_no_position(own_cluster):
    """The dump is of a bus that has come less far than the one it is restored into."""
    cluster = own_cluster
    source, target = (durable_database(cluster) for _ in range(2))
    with cluster.connect(source) as connection:
        position_of_one(connection)
        register = reserved_to(connection)
    with cluster.connect(target) as connection:
        while position_of_one(connection) <= register:
            positions_of_a_batch(connection)
        connection.execute("DELETE FROM herald.message")
    dump = run([cluster.program("pg_dump"), source], env=cluster.environment())
    cluster.psql(dump, target)
    with cluster.connect(target) as connection:
        connection.execute("CHECKPOINT")  # what the restore wrote outlives the crash
        highest = position_of_one(connection)
        cluster.kill9()
        connection.close()
    cluster.start()
    with cluster.connect(target) as connection:
        assert position_of_one(connection) > highest


def reserved_to(connection):
    return connection.execute("SELECT reserved_to FROM herald.engine").fetchone()[0]


def test_what_was_announced_is_there_after_a_crash(own_cluster):
    """A listener is told of a commit that is not on disk yet; the position it was told is not used
    for anything else."""
    database = durable_database(own_cluster)
    with own_cluster.connect(database) as connection:
        dispatcher(connection)
        told = {}
        for number in range(200):
            row = connection.execute(
                "INSERT INTO herald.message (topic, content) VALUES ('news', %s) RETURNING pos, id",
                [str(number)],
            ).fetchone()
            told[row[0]] = row[1]
        own_cluster.kill9()
        connection.close()
    own_cluster.start()
    with own_cluster.connect(database) as connection:
        for number in range(200):
            position_of_one(connection)
        stored = connection.execute("SELECT pos, id FROM herald.read('news', 0, 1000)").fetchall()
        others = {pos for pos, id in stored if told.get(pos) not in (None, id)}
        assert others == set()


def test_a_delivered_message_keeps_its_position(own_cluster):
    """It would enter the log again if its delivery were lost."""
    database = durable_database(own_cluster)
    with own_cluster.connect(database) as connection:
        connection.execute("SET synchronous_commit = on")
        for _ in range(20):
            connection.execute(
                "SELECT herald.send_message('a', NULL, 'x', topic => 'due',"
                " deliver_at => clock_timestamp() + interval '50 ms')"
            )
        read = "SELECT pos, id FROM herald.read('due')"
        wait_until(lambda: len(connection.execute(read).fetchall()) == 20, what="the deliveries")
        before = connection.execute(read).fetchall()
        own_cluster.kill9()
    own_cluster.start()
    with own_cluster.connect(database) as connection:
        dispatcher(connection)
        assert connection.execute(read).fetchall() == before


def test_two_phase_commit_of_a_send_is_refused(own_cluster):
    database = durable_database(own_cluster)
    with own_cluster.connect(database) as connection:
        for send in (position_of_one, positions_of_a_batch):
            connection.execute("BEGIN")
            send(connection)
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="PREPARE"):
                connection.execute("PREPARE TRANSACTION 'sent'")
        scheduled = "SELECT herald.send_message('a', 'b', 'c', deliver_at => now() + interval '1 h')"
        message = connection.execute(scheduled).fetchone()[0]
        for statement in (
            scheduled,
            f"SELECT herald.cancel('{message}')",
            "SELECT herald.start_segment()",
            "DROP EXTENSION pg_herald",
        ):
            connection.execute("BEGIN")
            connection.execute(statement)
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="PREPARE"):
                connection.execute("PREPARE TRANSACTION 'changed'")
        connection.execute("BEGIN; SELECT herald.horizon(); PREPARE TRANSACTION 'read'")
        connection.execute("COMMIT PREPARED 'read'")
        pos = position_of_one(connection)
        assert connection.execute("SELECT pos FROM herald.read('*')").fetchall() == [(pos,)]
