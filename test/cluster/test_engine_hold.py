"""G4: nobody waits for a stranger. An open transaction that has sent delays others by max_hold at
most, and its own messages come after its commit, at new positions."""

import json
import time

import pytest

from ear import Ear, engine
from herald import wait_until
from pauses import Pauses
from probe import Probe, quantile, tell

pytestmark = pytest.mark.tier("engine")

MAX_HOLD = 0.020  # the default
MARGIN = 0.150  # for the scheduler of a small, busy machine
ROUNDS = 25
EACH = 8  # messages of the others while one transaction is open


def send(connection, content, topic="late"):
    return connection.execute(
        "SELECT herald.send_message('a', NULL, %s, topic => %s)", [content, topic]
    ).fetchone()[0]


@pytest.mark.parametrize("by_read", [False, True], ids=["listen", "read"])
def test_an_open_transaction_delays_nobody_longer_than_max_hold(cluster, database, by_read):
    with (
        Probe(cluster, database, "probe", by_read) as probe,
        cluster.connect(database, autocommit=False) as late,
    ):
        probe.more(50)
        quiet = list(probe.delays)
        probe.forget()
        for number in range(ROUNDS):
            send(late, f"open {number}")
            probe.more(EACH)
            late.commit()
    tell("nothing open", quiet)
    tell("one open", probe.delays)
    assert quantile(probe.delays, 0.99) <= MAX_HOLD + MARGIN


def test_messages_of_a_late_transaction_come_at_its_commit(cluster, database):
    with (
        cluster.connect(database) as other,
        cluster.connect(database, autocommit=False) as late,
        Ear(cluster, database, "late", "others") as ear,
    ):
        ids = [send(late, f"late {number}") for number in range(5)]
        early = late.execute("SELECT pos FROM herald.message ORDER BY pos").fetchall()
        pid = late.info.backend_pid

        def own_row():
            return other.execute(
                "SELECT state, kind, low_position, since < now() FROM herald.senders WHERE pid = %s",
                [pid],
            ).fetchone()

        send(other, "between", "others")
        ear.wait_for(1)  # so it is late by now
        assert own_row() == ("late", "near", early[0][0], True)
        assert engine(other, "senders") == 1 and engine(other, "oldest_sender") is not None
        assert other.execute("SELECT content FROM herald.read('*')").fetchall() == [("between",)]

        # It doesn't find its own by reading: they will move, and it would get them again.
        for call in ("herald.read('*', 0, 1)", "herald.tail('*', 9)", "herald.wait_for('*', 0, '9s')"):
            contents = late.execute(f"SELECT content FROM {call}").fetchall()
            assert contents == [("between",)], call

        before = engine(other, "horizon")
        restamped = engine(other, "restamped_messages")
        late.commit()
        rows = other.execute(
            "SELECT pos, id, content FROM herald.read('*', %s)", [before]
        ).fetchall()
        assert [id for _, id, _ in rows] == ids
        assert [content for _, _, content in rows] == [f"late {number}" for number in range(5)]
        assert rows[0][0] > before and rows[0][0] > early[-1][0]
        assert engine(other, "restamped_messages") == restamped + 5
        assert own_row() is None
        heard = [json.loads(payload) for payload in ear.wait_for(6)]
        assert [m["content"] for m in heard] == ["between"] + [c for _, _, c in rows]
        assert [m["pos"] for m in heard[1:]] == [pos for pos, _, _ in rows]


def test_a_late_transaction_that_rolls_back_leaves_nothing(cluster, database):
    with (
        cluster.connect(database) as other,
        cluster.connect(database, autocommit=False) as late,
        Ear(cluster, database, "late", "others") as ear,
    ):
        for number in range(3):
            send(late, "never")
            send(other, str(number), "others")
            ear.wait_for(number + 1)
            late.rollback()
        assert engine(other, "senders") == 0
        contents = other.execute("SELECT content FROM herald.read('*')").fetchall()
        assert contents == [("0",), ("1",), ("2",)]
        assert [json.loads(p)["content"] for p in ear.payloads()] == ["0", "1", "2"]


def test_max_hold_is_the_setting(cluster, database):
    """Longer, by a reload: then a transaction is late only after that time."""
    with cluster.connect(database) as other:
        other.execute("ALTER SYSTEM SET herald.max_hold = '2s'")
        other.execute("SELECT pg_reload_conf()")
        try:
            wait_until(
                lambda: other.execute("SHOW herald.max_hold").fetchone()[0] == "2s",
                what="the reload",
            )
            with (
                cluster.connect(database, autocommit=False) as late,
                Ear(cluster, database, "others") as ear,
            ):
                pauses, begin = Pauses(), time.monotonic()
                send(late, "late")
                send(other, "kept waiting", "others")
                ear.wait_for(1)
                heard = ear.heard[0][0]
                assert 1.9 < heard - begin
                assert heard - begin - pauses.between(begin, heard) < 2 + MARGIN * 4
        finally:
            other.execute("ALTER SYSTEM RESET herald.max_hold")
            other.execute("SELECT pg_reload_conf()")


def test_sixteen_senders_to_one_new_topic_do_not_wait(cluster, database):
    """None of them commits before all have sent."""
    connections = [cluster.connect(database, autocommit=False) for _ in range(16)]
    try:
        for connection in connections:
            connection.execute("SET LOCAL lock_timeout = '1s'")
            send(connection, str(connection.info.backend_pid), "new")
            connection.execute("SELECT herald.publish('new', '1')")
            connection.execute("SELECT herald.publish_batch('new', array_fill('2'::jsonb, '{100}'))")
        with cluster.connect(database) as other:
            waiting = other.execute(
                "SELECT pid, wait_event FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchall()
            assert waiting == []
            assert engine(other, "senders") == 16
            for connection in connections:
                connection.commit()
            counted = other.execute("SELECT count(*) FROM herald.read('new', 0, 10000)").fetchone()
            assert counted[0] == 16 * 102
    finally:
        for connection in connections:
            connection.close()
