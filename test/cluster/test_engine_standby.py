"""Hot standby: the order holds on a physical replica too, also under late transactions and batches
from far ahead; after promotion positions continue above everything the old primary gave out."""

import json
import threading

import psycopg
import pytest

from ear import Ear, dispatcher
from herald import Cluster, wait_until
from standby import Standby
from workload import Books, Sender, join_all

pytestmark = pytest.mark.tier("engine")

QUOTA = 400
RESERVED_AT_ONCE = 1 << 24  # positions
BATCH = "(SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 300) n)"


@pytest.fixture
def primary():
    with Cluster("primary", {"herald.max_hold": 5}) as cluster:
        yield cluster


@pytest.fixture
def standby(primary):
    with Standby(primary) as cluster:
        yield cluster


class Thread(threading.Thread):
    """Runs `work` again and again until `stop`; `failure` is what it raised."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.failure = work, None
        self._ended = threading.Event()
        self.start()

    def run(self):
        try:
            while not self._ended.is_set():
                self.work()
        except BaseException as failure:
            self.failure = failure

    def stop(self):
        self._ended.set()
        self.join(60)
        if self.failure:
            raise self.failure


class Pager:
    """Pages through everything on the replica."""

    def __init__(self, standby, database, level):
        self.connection = standby.connect(database, autocommit=False)
        self.level = level
        self.received, self.horizons, self.gaps = [], [0], set()

    def page(self):
        execute = self.connection.execute
        after = self.received[-1][0] if self.received else 0
        execute(f"SET TRANSACTION ISOLATION LEVEL {self.level}")
        execute("SELECT 1")
        rows = execute("SELECT pos, id FROM herald.read('*', %s, 50)", [after]).fetchall()
        self.horizons.append(execute("SELECT herald.horizon()").fetchone()[0])
        self.gaps.add(execute("SELECT why FROM herald.gap('*', %s)", [after]).fetchone()[0])
        last = execute("SELECT max(pos) FROM herald.tail('*', 3)").fetchone()[0]
        assert (last or 0) >= after, "tail ends before what was read"
        assert all(pos <= self.horizons[-1] for pos, _ in rows)
        self.received += rows
        self.connection.commit()
        return rows


def test_no_late_arrival_on_a_replica(primary, standby, seed):
    database = primary.create_database()
    standby.catch_up()
    late = primary.connect(database, autocommit=False)

    def send_late():
        """Overtaken by others, then committed; every other time with a far batch."""
        late.execute("SELECT herald.publish('late', '1')")
        late.execute(f"SELECT count(*) FROM herald.publish_batch('late', {BATCH})")
        pid = late.info.backend_pid
        wait_until(
            lambda: watcher.execute(
                "SELECT EXISTS (SELECT FROM herald.senders WHERE pid = %s AND state = 'late')",
                [pid],
            ).fetchone()[0]
            or not any(sender.is_alive() for sender in senders),
            what="a late transaction",
        )
        late.commit()

    books = Books()
    senders = [Sender(f"s{n}", primary, database, books, QUOTA, seed) for n in range(1, 4)]
    for sender in senders:
        sender.daemon = True
        sender.start()
    pagers = [
        Pager(standby, database, level) for level in ("READ COMMITTED", "REPEATABLE READ")
    ]
    with primary.connect(database) as watcher:
        threads = [Thread(send_late), *(Thread(pager.page) for pager in pagers)]
        join_all(senders)
        for thread in threads:
            thread.stop()
        watcher.execute("SELECT herald.settle(herald.next_free_position() - 1)")
        restamped = watcher.execute("SELECT restamped_messages FROM herald.engine").fetchone()[0]
        standby.learn_horizon(database)
        log = watcher.execute("SELECT pos, id FROM herald.messages ORDER BY pos").fetchall()
    late.close()
    for pager in pagers:
        while pager.page():
            pass
        pager.connection.close()
        assert pager.received == log
        assert pager.horizons == sorted(pager.horizons)
        assert pager.gaps == {None}
    assert restamped > 0 and len(log) > 3 * QUOTA


def test_what_a_replica_refuses(primary, standby):
    database = primary.create_database()
    with primary.connect(database) as connection:
        connection.execute("SELECT herald.publish('news', '1')")
        after = connection.execute("SELECT herald.horizon()").fetchone()[0]
    standby.catch_up()
    standby.learn_horizon(database)
    with standby.connect(database) as replica:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="standby"):
            replica.execute("SELECT * FROM herald.wait_for('news', 0, '1 s')")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replica.execute(
                "SELECT herald.send_message('a', 'b', 'no', deliver_at => now() + '1 hour')"
            )
        # Whoever comes from the primary and is ahead has not been reset.
        gap = replica.execute("SELECT * FROM herald.gap('*', %s)", [after + 1000]).fetchone()
        assert gap == (None, None)
        assert replica.execute("SELECT loaded FROM herald.engine").fetchone() == (True,)
        assert replica.execute("SELECT * FROM herald.senders").fetchall() == []


def test_after_promotion_positions_are_above_all(primary, standby):
    """Also above those that the old primary gave out when nothing reached the replica any more."""
    database = primary.create_database()
    with primary.connect(database) as connection:
        connection.execute("SELECT herald.publish('news', '\"replicated\"')")
        standby.catch_up()
        standby.learn_horizon(database)
        with standby.connect() as replica:
            replica.execute("ALTER SYSTEM SET primary_conninfo = ''")
            replica.execute("SELECT pg_reload_conf()")
            wait_until(
                lambda: replica.execute(
                    "SELECT count(*) = 0 FROM pg_stat_wal_receiver"
                ).fetchone()[0],
                what="the end of replication",
            )
        highest = 0
        while highest <= RESERVED_AT_ONCE:
            connection.execute(f"SELECT count(*) FROM herald.publish_batch('lost', {BATCH})")
            connection.execute("BEGIN")
            connection.execute(
                "SELECT count(*) FROM herald.publish_batch('lost',"
                " (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 10000) n))"
            )
            connection.execute("COMMIT")
            (highest,) = connection.execute("SELECT max(pos) FROM herald.message").fetchone()
    primary.stop("immediate")
    standby.promote()
    with standby.connect(database) as connection, Ear(standby, database, "news") as ear:
        wait_until(
            lambda: not connection.execute("SELECT pg_is_in_recovery()").fetchone()[0],
            what="the promotion",
        )
        dispatcher(connection)
        assert connection.execute("SELECT content FROM herald.read('*')").fetchall() == [
            ('"replicated"',)
        ]
        connection.execute("SELECT herald.publish('news', '\"promoted\"')")
        message = json.loads(ear.wait_for(1)[0])
        assert message["content"] == "promoted" and message["pos"] > highest
        rows = connection.execute("SELECT content FROM herald.wait_for('*', 0, '1 s')").fetchall()
        assert rows == [('"replicated"',), ('"promoted"',)]
