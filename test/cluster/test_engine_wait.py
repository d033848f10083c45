"""wait_for: woken by a commit, holding nothing meanwhile, and to be cancelled at any time."""

import concurrent.futures
import threading
import time

import psycopg
import pytest

from ear import dispatcher
from herald import wait_until
from probe import Probe, quantile, tell

pytestmark = pytest.mark.tier("engine")


class Waiter(threading.Thread):
    """One call of wait_for; `result` is its rows' contents or its error."""

    def __init__(self, cluster, database, topics, after=0, timeout="30 s"):
        super().__init__(daemon=True)
        self.arguments = (topics, after, timeout)
        self.connection = cluster.connect(database)
        self.pid = self.connection.info.backend_pid
        self.result = self.at = None
        self.start()

    def run(self):
        try:
            self.result = [
                content
                for (content,) in self.connection.execute(
                    "SELECT content FROM herald.wait_for(%s, %s, %s)", self.arguments
                )
            ]
        except psycopg.Error as error:
            self.result = error
        self.at = time.monotonic()

    def end(self, timeout=15):
        self.join(timeout)
        assert not self.is_alive(), f"still waiting for {self.arguments}"
        self.connection.close()
        return self.result


def await_sleep(connection, waiters):
    pids = [waiter.pid for waiter in waiters]
    wait_until(
        lambda: connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND state = 'active'"
            " AND wait_event_type = 'Extension'",
            [pids],
        ).fetchone()[0]
        == len(pids),
        what="waiters asleep",
    )


def publish(connection, topic, content="1"):
    connection.execute("SELECT herald.publish(%s, %s)", [topic, content])


def horizon(connection):
    return connection.execute("SELECT herald.horizon()").fetchone()[0]


def test_woken_by_the_commit(cluster, database):
    delays = []
    with cluster.connect(database) as connection:
        for topics in ("news", "n*s") * 10:
            waiter = Waiter(cluster, database, topics, horizon(connection))
            await_sleep(connection, [waiter])
            connection.execute("BEGIN")
            publish(connection, "news", '"first"')
            publish(connection, "news", '"second"')
            begin = time.monotonic()
            connection.execute("COMMIT")
            assert waiter.end() == ['"first"', '"second"']
            delays.append(waiter.at - begin)
    tell("from COMMIT to wake-up", delays)
    assert quantile(delays, 0.5) < 0.050


def test_what_is_there_is_given_at_once_and_at_most_100(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute(
            "SELECT count(*) FROM herald.publish_batch('news',"
            " (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 250) n))"
        )
        rows, after = [], 0
        while page := connection.execute(
            "SELECT pos, content::int FROM herald.wait_for('news', %s, '0')", [after]
        ).fetchall():
            assert len(page) <= 100
            rows, after = rows + [content for _, content in page], page[-1][0]
        assert rows == list(range(1, 251))


def test_no_rows_after_the_timeout(cluster, database):
    with cluster.connect(database) as connection:
        begin = time.monotonic()
        rows = connection.execute("SELECT * FROM herald.wait_for('never', 0, '200 ms')").fetchall()
        assert rows == [] and 0.2 <= time.monotonic() - begin < 2


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_it_can_be_cancelled_at_once(cluster, database, function):
    with cluster.connect(database) as connection:
        waiter = Waiter(cluster, database, "never")
        await_sleep(connection, [waiter])
        begin = time.monotonic()
        connection.execute(f"SELECT {function}(%s)", [waiter.pid])
        cancelled = psycopg.errors.QueryCanceled
        assert isinstance(
            waiter.end(), cancelled if "cancel" in function else psycopg.OperationalError
        )
        assert waiter.at - begin < 1


def test_it_holds_back_no_vacuum(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute("CREATE TABLE item AS SELECT 1 AS number")
        waiters = [Waiter(cluster, database, topics) for topics in ("never", "nev*")]
        await_sleep(connection, waiters)
        held = connection.execute(
            "SELECT count(backend_xmin) + count(backend_xid) FROM pg_stat_activity WHERE pid = ANY (%s)",
            [[waiter.pid for waiter in waiters]],
        ).fetchone()[0]
        assert held == 0
        connection.execute("UPDATE item SET number = 2")
        publish(connection, "other")  # the pattern's waiter has to look, and sleeps again
        await_sleep(connection, waiters)
        notices = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))

        def vacuumed():  # others, say autovacuum, have snapshots too, but not for long
            connection.execute("VACUUM VERBOSE item")
            return any("1 removed" in notice for notice in notices)

        wait_until(vacuumed, what="the removal of a row version")
        publish(connection, "never")
        assert [waiter.end() for waiter in waiters] == [["1"], ["1"]]


def test_what_an_open_cursor_sees_is_kept(cluster, database):
    """The transaction has another snapshot than that of the statement that waits."""
    with cluster.connect(database) as connection, cluster.connect(database) as other:
        connection.execute("CREATE TABLE item AS SELECT n FROM generate_series(1, 1000) n")
        other.execute("BEGIN; DECLARE c CURSOR FOR SELECT n FROM item; FETCH 1 FROM c")
        pid = other.info.backend_pid
        waiting = threading.Thread(
            target=other.execute, args=["SELECT FROM herald.wait_for('wake', 0, '1 min')"]
        )
        waiting.start()
        asleep = "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: connection.execute(asleep, [pid]).fetchone()[0], what="the wait")
        connection.execute("DELETE FROM item")
        connection.execute("VACUUM item")
        publish(connection, "wake")
        waiting.join()
        assert len(other.execute("FETCH ALL FROM c").fetchall()) == 999
        other.execute("COMMIT")


def test_a_wait_for_a_lock_loses_no_wake_up(cluster, database):
    """Reading may wait for a lock, which PostgreSQL does on the latch that wakes the waiter."""
    with cluster.connect(database) as connection, cluster.connect(database) as locker:
        dispatcher(connection)
        publish(connection, "other")
        # The timer of the search for deadlocks would wake it, too.
        connection.execute(f"ALTER DATABASE \"{database}\" SET deadlock_timeout = '1h'")
        locker.execute("BEGIN; LOCK TABLE herald.topic_start IN ACCESS EXCLUSIVE MODE")
        waiter = Waiter(cluster, database, "inbox")
        wait_until(
            lambda: connection.execute(
                "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [waiter.pid]
            ).fetchone()[0],
            what="the waiter's wait for the lock",
        )
        publish(connection, "inbox", '"news"')
        wait_until(
            lambda: connection.execute("SELECT horizon >= next_position - 1 FROM herald.engine")
            .fetchone()[0],
            what="the horizon",
        )
        locker.execute("COMMIT")
        assert waiter.end() == ['"news"']


def test_fifty_waiters_with_traffic_on_other_topics(cluster, database):
    count = 50
    with cluster.connect(database) as connection:
        dispatcher(connection)
        waiters = [Waiter(cluster, database, f"inbox:{number}") for number in range(count)]
        await_sleep(connection, waiters)
        with Probe(cluster, database, "probe") as probe:
            probe.more(200)
            assert all(waiter.is_alive() for waiter in waiters)
            for number in range(count):
                publish(connection, f"inbox:{number}", str(number))
            results = [waiter.end() for waiter in waiters]
    tell("others", probe.delays)
    assert results == [[str(number)] for number in range(count)]
    assert quantile(probe.delays, 0.5) < 0.050


def test_dropping_the_extension_ends_the_wait(cluster, database):
    with cluster.connect(database) as connection:
        publish(connection, "other")
        waiter = Waiter(cluster, database, "never")
        await_sleep(connection, [waiter])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            # DROP waits for the waiter's transaction, which reads the log: end it by a cancel.
            drop = pool.submit(connection.execute, "DROP EXTENSION pg_herald")
            with cluster.connect() as other:
                wait_until(
                    lambda: not waiter.is_alive()
                    or other.execute(
                        "SELECT %s = ANY (pg_blocking_pids(%s))",
                        [waiter.pid, connection.info.backend_pid],
                    ).fetchone()[0],
                    what="the wait's end, or DROP waiting for it",
                )
                other.execute("SELECT pg_cancel_backend(%s)", [waiter.pid])
            drop.result(15)
        assert isinstance(waiter.end(), psycopg.Error)
