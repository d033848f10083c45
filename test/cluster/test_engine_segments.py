"""Segments of the log begin and go by themselves, and nobody waits for that: not who sends, not who
reads, not the keeper for whoever has the log open."""

import random
import threading

import psycopg
import pytest

from ear import dispatcher, engine
from herald import Cluster, wait_until
from probe import Probe, tell
from standby import Standby

pytestmark = pytest.mark.tier("engine")

MAX_HOLD = 0.020  # the default
MARGIN = 0.150  # for the scheduler of a small, busy machine


def send(connection, topic, *texts):
    for text in texts:
        connection.execute("SELECT herald.send_message(NULL, NULL, %s, topic => %s)", [text, topic])


def contents(connection, topic):
    rows = connection.execute("SELECT content FROM herald.read(%s, 0, 10000)", [topic])
    return [content for (content,) in rows]


def segments(connection):
    """{number: (held_by, sessions)}"""
    rows = connection.execute("SELECT number, held_by, sessions FROM herald.segments")
    return {number: (held_by, sessions) for number, held_by, sessions in rows}


def disk_bytes(connection, number):
    return connection.execute(
        "SELECT disk_bytes FROM herald.segments WHERE number = %s", [number]
    ).fetchone()[0]


def let_go_of_segment_0(connection):
    """Whatever it has; the keeper is told."""
    connection.execute("SELECT herald.start_segment()")
    send(connection, "kept", "first of segment 1")
    connection.execute("SELECT herald.trim('*', 1000000000)")
    wake_keeper(connection)


def wake_keeper(connection):
    connection.execute("SELECT herald.set_retention('nothing', max_messages => 1)")


def set_for_keeper(connection, setting):
    """In this database. A keeper that is there, or is just starting, has read its settings already:
    waits for one that has this."""
    name = connection.info.dbname
    connection.execute(f'ALTER DATABASE "{name}" SET herald.{setting}')
    (since,) = connection.execute("SELECT clock_timestamp()").fetchone()

    def is_there():
        keepers = connection.execute(
            "SELECT backend_start > %s, CASE WHEN backend_start <= %s"
            " THEN pg_terminate_backend(pid, 10000) END FROM pg_stat_activity"
            " WHERE backend_type = 'herald keeper' AND datname = current_database()",
            [since, since],
        ).fetchall()
        if not keepers:
            wake_keeper(connection)
        return any(has_it for has_it, _ in keepers)

    wait_until(is_there, what="a keeper with the setting")


def await_removal(connection, number=0):
    wait_until(lambda: number not in segments(connection), what=f"the end of segment {number}")


def test_segments_come_and_go_by_themselves(cluster, database):
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_age = '1s'")
        connection.execute("SELECT herald.set_retention('probe*', max_age => '2s')")
        with (
            Probe(cluster, database, "probe") as listening,
            Probe(cluster, database, "probe 2", by_read=True) as reading,
        ):
            wait_until(lambda: min(segments(connection)) >= 3, what="the end of three segments")
            there = segments(connection)
            for probe in (listening, reading):
                probe.more(10)
        tell("LISTEN", listening.delays)
        tell("read", reading.delays)
        assert max(listening.arrivals + reading.arrivals) <= MAX_HOLD + MARGIN
        assert len(there) <= 6
        (told,) = connection.execute("SELECT why FROM herald.gap('probe', 1)").fetchone()
        assert told == "retention"


def test_a_large_segment_is_left(cluster, database):
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_size = '4MB'")
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'load', repeat('x', 200) FROM generate_series(1, 40000)"
        )
        wait_until(lambda: segments(connection)[0][0] == "messages", what="the next segment")
        send(connection, "load", "next")
        pos, count = connection.execute("SELECT max(pos), count(*) FROM herald.message").fetchone()
        assert (pos, count) == (1_000_000_000, 40_001)


def test_a_bulk_load_is_not_written_again_for_a_new_segment(cluster, database):
    """The counter would go past the positions that the load has ahead of it."""
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as loader,
    ):
        set_for_keeper(connection, "segment_size = '4MB'")
        for _ in range(3):
            loader.execute(
                "SELECT count(*) FROM herald.publish_batch('load', (SELECT array_agg(to_jsonb(n))"
                " FROM generate_series(1, 10000) n))"
            )
        assert 4_000_000 < disk_bytes(connection, 0) < 16_000_000
        send(connection, "few", "1", "2")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        wait_until(lambda: contents(connection, "few") == ["2"], what="a round of the keeper")
        wake_keeper(connection)
        send(connection, "few", "3")
        wait_until(lambda: contents(connection, "few") == ["3"], what="another round")
        assert segments(connection)[0][0] == "open"
        loader.commit()
        wait_until(lambda: segments(connection)[0][0] == "messages", what="the next segment")
        assert engine(connection, "restamped_messages") == 0


def test_who_has_the_log_open_disturbs_nobody(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as reader,
    ):
        send(connection, "gone", "1", "2")
        assert reader.execute("SELECT count(*) FROM herald.message").fetchone() == (2,)
        let_go_of_segment_0(connection)
        expected = (None, [reader.info.backend_pid])
        wait_until(lambda: segments(connection)[0] == expected, what="the wait for a reader")
        with Probe(cluster, database, "probe") as probe:
            probe.more(300)
            wake_keeper(connection)
            connection.execute("SELECT herald.start_segment()")
            probe.more(300)
        assert max(probe.arrivals) <= MAX_HOLD + MARGIN
        # The keeper, too, has the log open now and then.
        wait_until(lambda: segments(connection)[0] == expected, what="nobody but the reader")
        reader.commit()
        await_removal(connection)
        assert contents(connection, "kept") == ["first of segment 1"]


def test_the_disk_is_free_though_somebody_has_the_log_open(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as reader,
    ):
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'gone', repeat('x', 200) FROM generate_series(1, 10000)"
        )
        connection.execute("SELECT herald.start_segment()")
        send(connection, "kept", "1")
        reader.execute("SELECT content FROM herald.message WHERE pos = 1000000000")
        assert disk_bytes(connection, 0) > 2_000_000
        let_go_of_segment_0(connection)
        wait_until(lambda: disk_bytes(connection, 0) < 100_000, what="the empty segment")
        reader.rollback()
        await_removal(connection)


def test_what_others_make_of_a_segment_keeps_its_table_and_nothing_else(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'gone', repeat('x', 200) FROM generate_series(1, 10000)"
        )
        connection.execute("CREATE VIEW mine AS SELECT * FROM herald.message_0")
        for text in "ab":
            connection.execute("SELECT herald.start_segment()")
            send(connection, "gone", text)
        connection.execute("SELECT herald.trim('*', 2000000000)")
        await_removal(connection, 1)
        wait_until(lambda: disk_bytes(connection, 0) < 100_000, what="the empty segment")
        connection.execute("DROP VIEW mine")
        wake_keeper(connection)
        await_removal(connection, 0)
        assert contents(connection, "*") == ["b"]


def test_an_old_snapshot_holds_no_segment(cluster, database):
    with cluster.connect(database) as connection, cluster.connect(database) as old:
        send(connection, "gone", "1", "2")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        let_go_of_segment_0(connection)
        await_removal(connection)
        assert old.execute("SELECT content FROM herald.read('kept')").fetchall() == [
            ("first of segment 1",)
        ]


def test_the_messages_of_a_late_transaction_outlive_their_segment(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as late,
    ):
        send(late, "late", "1", "2")
        send(connection, "gone", "1")
        wait_until(lambda: contents(connection, "gone"), what="the overtaking")
        let_go_of_segment_0(connection)
        wait_until(lambda: segments(connection)[0][0] == "senders", what="the wait for a sender")
        late.commit()
        wait_until(lambda: contents(connection, "late") == ["1", "2"], what="what was late")
        wake_keeper(connection)
        await_removal(connection)
        assert contents(connection, "late") == ["1", "2"]


def begin_to_detach(cluster, database, number):
    """As the keeper does, and is stopped after the first step."""
    with (
        cluster.connect(database, autocommit=False) as reader,
        cluster.connect(database) as connection,
    ):
        reader.execute("SELECT count(*) FROM herald.message")
        connection.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(
                "ALTER TABLE herald.message"
                f" DETACH PARTITION herald.message_{number} CONCURRENTLY"
            )


def detach(cluster, database, number):
    with cluster.connect(database) as connection:
        connection.execute(
            f"ALTER TABLE herald.message DETACH PARTITION herald.message_{number}"
        )


@pytest.mark.parametrize("step", [begin_to_detach, detach])
def test_a_crash_between_the_steps(step):
    with Cluster("segments", {"herald.maintain": "off"}) as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            send(connection, "gone", "1", "2")
            send(connection, "gone too", "1", "2")
            connection.execute("SELECT herald.start_segment()")
            send(connection, "gone", "3")
            connection.execute("SELECT herald.start_segment()")
            send(connection, "kept", "4")
            connection.execute("SELECT herald.trim('*', 2000000000)")
        step(cluster, database, 0)
        cluster.kill9()
        cluster.start()
        with cluster.connect(database) as connection:
            send(connection, "kept", "5")  # with a segment of the log half gone
            assert contents(connection, "*") == ["4", "5"]
            connection.execute("SELECT herald.start_segment()")
            send(connection, "kept", "6")
            connection.execute("ALTER SYSTEM SET herald.maintain = on")
            connection.execute("SELECT pg_reload_conf()")
            wake_keeper(connection)
            await_removal(connection, 0)
            await_removal(connection, 1)
            assert contents(connection, "*") == ["4", "5", "6"]


@pytest.mark.parametrize("step", [begin_to_detach, detach])
def test_the_extension_is_dropped_between_the_steps(cluster, step):
    database = cluster.create_database()
    with cluster.connect(database) as connection:
        send(connection, "gone", "1")
        step(cluster, database, 0)
        connection.execute("DROP EXTENSION pg_herald CASCADE")
        left = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^message_'")
        assert left.fetchall() == []
        connection.execute("CREATE EXTENSION pg_herald")
        send(connection, "new", "1")
        assert contents(connection, "*") == ["1"]
    cluster.drop_database(database)


class Rotation(threading.Thread):
    """Sends, begins segments, lets go of what is older, until the server is gone."""

    def __init__(self, cluster, database, after):
        super().__init__(daemon=True)
        self.sent = []
        self._first = after + 1
        self._connection = cluster.connect(database)
        self.start()

    def run(self):
        try:
            for number in range(self._first, self._first + 100_000):
                send(self._connection, "kept" if number % 2 else "gone", str(number))
                self.sent.append(number)
                if number % 5 == 0:
                    self._connection.execute("SELECT herald.start_segment()")
                    self._connection.execute("SELECT herald.trim('kept', t.last_pos)"
                                             " FROM herald.topics t WHERE t.name = 'kept'")  # fmt: skip
                    self._connection.execute("SELECT herald.trim('gone', 1::bigint << 52)")
                    wake_keeper(self._connection)
        except psycopg.OperationalError:
            pass


def test_crashes_while_segments_come_and_go():
    """After each the bus is whole: what was let go of stays away, what is kept is there once and in
    order, the counters are right, and the segments go on going."""
    generator = random.Random(4)
    with Cluster("segments") as cluster:
        database = cluster.create_database()
        last = 0
        for _ in range(8):
            rotation = Rotation(cluster, database, last)
            with cluster.connect(database) as connection:
                begun = max(segments(connection))
                removed = generator.randrange(1, 6)
                wait_until(
                    lambda: max(segments(connection)) > begun + removed, what="the next segments"
                )
            cluster.kill9()
            rotation.join()
            cluster.start()
            last = rotation.sent[-1] + 1  # the next may have been stored unseen
            with cluster.connect(database) as connection:
                kept = [int(number) for number in contents(connection, "kept")]
                odd = [number for number in rotation.sent if number % 2] + [last] * (last % 2)
                assert kept in (odd[-len(kept) :], odd[:-1][-len(kept) :]), "lost, or come again"
                trimmed = last // 5 * 5  # it kept the last that was there then
                assert kept[0] <= trimmed < kept[-1] + 5
                counted = connection.execute(
                    "SELECT messages, first_pos, last_pos FROM herald.topics WHERE name = 'kept'"
                ).fetchone()
                there = connection.execute(
                    "SELECT count(*), min(pos), max(pos) FROM herald.messages WHERE topic = 'kept'"
                ).fetchone()
                assert counted == there
                first = there[1] // 1_000_000_000
                wake_keeper(connection)
                wait_until(lambda: min(segments(connection)) >= first, what="the end of the old ones")


def test_a_standby_follows():
    with Cluster("primary") as cluster, Standby(cluster) as standby:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            dispatcher(connection)
            send(connection, "gone", "1", "2")
            standby.catch_up()
            standby.learn_horizon(database)
            with standby.connect(database) as reader:
                assert contents(reader, "*") == ["1", "2"]
                let_go_of_segment_0(connection)
                await_removal(connection)
                standby.catch_up()
                standby.learn_horizon(database)
                assert contents(reader, "*") == ["first of segment 1"]
                assert segments(reader).keys() == segments(connection).keys()
