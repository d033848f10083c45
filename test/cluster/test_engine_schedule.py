"""deliver_at: a message waits outside the log, enters it at its time, also if the server was down
then, and costs the others nothing."""

import json
import time
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from ear import Ear, dispatcher, engine
from herald import Cluster, wait_until
from pauses import Pauses
from probe import Probe, quantile, tell

pytestmark = pytest.mark.tier("engine")

FAR_AHEAD = 100_000


@pytest.fixture
def own_cluster():
    with Cluster("schedule") as cluster:
        yield cluster


def schedule(connection, content, seconds, topic="news"):
    """Due so many seconds from now, by the server's clock."""
    return connection.execute(
        "SELECT herald.send_message('a', NULL, %s, topic => %s,"
        " deliver_at => clock_timestamp() + %s * interval '1 second')",
        [content, topic, seconds],
    ).fetchone()[0]


def heard_contents(ear):
    return [json.loads(payload)["content"] for payload in ear.payloads()]


def test_a_message_is_heard_within_50_ms_of_its_time(cluster, database):
    count = 60
    pauses = Pauses()
    with Ear(cluster, database, "news") as ear, cluster.connect(database) as connection:
        due = {}
        for number in range(count):
            now = connection.execute("SELECT clock_timestamp()").fetchone()[0]
            at = now + timedelta(seconds=0.3 + 0.017 * number)
            due[str(number)] = (at - datetime.now(timezone.utc)).total_seconds() + time.monotonic()
            connection.execute(
                "SELECT herald.send_message('a', NULL, %s, topic => 'news', deliver_at => %s)",
                [str(number), at],
            )
        assert connection.execute("SELECT count(*) FROM herald.scheduled").fetchone()[0] > 0
        ear.wait_for(count)
        assert heard_contents(ear) == [str(number) for number in range(count)]
        spans = [
            (due[content], at) for (at, _, _), content in zip(ear.heard, heard_contents(ear))
        ]
        assert min(at - time_due for time_due, at in spans) > -0.005
        late = [at - time_due - pauses.between(time_due, at) for time_due, at in spans]
        tell("after its time", late)
        assert quantile(late, 0.9) <= 0.050
        assert connection.execute("SELECT count(*) FROM herald.scheduled").fetchone()[0] == 0
        assert engine(connection, "next_delivery") is None


def test_the_message_is_what_it_would_have_been(cluster, database):
    """Same id, the position and time of its delivery; not to be read before."""
    with cluster.connect(database) as connection:
        id = schedule(connection, "later", 2)
        assert connection.execute("SELECT * FROM herald.read('*')").fetchall() == []
        assert connection.execute("SELECT * FROM herald.message_by_id(%s)", [id]).fetchall() == []
        connection.execute("SELECT herald.send_message('a', NULL, 'now', topic => 'news')")
        rows = wait_until(
            lambda: connection.execute(
                "SELECT content, id FROM herald.read('*') OFFSET 1"
            ).fetchall(),
            what="the delivery",
        )
        assert rows == [("later", id)]
        assert not connection.execute("SELECT herald.cancel(%s)", [id]).fetchone()[0]


def test_what_became_due_while_the_server_was_down(own_cluster):
    """Delivered soon after the start, in the order of their times, though nobody connects."""
    database = own_cluster.create_database()
    with own_cluster.connect(database) as connection:
        until = time.monotonic() + 4.0
        for number in (2, 1, 3):
            schedule(connection, str(number), 2 + number / 2)
        schedule(connection, "cancelled", 3)
        last = schedule(connection, "much later", 3600)
        connection.execute(
            "SELECT herald.cancel(id) FROM herald.scheduled WHERE content = 'cancelled'"
        )
    own_cluster.kill9()
    wait_until(lambda: time.monotonic() > until, what="their time")
    own_cluster.start()
    with own_cluster.connect(database) as connection:
        rows = wait_until(
            lambda: connection.execute("SELECT content FROM herald.read('*') OFFSET 2").fetchall(),
            5,
            "the delivery",
        )
        assert rows == [("3",)]
        contents = connection.execute("SELECT content FROM herald.read('*')").fetchall()
        assert contents == [("1",), ("2",), ("3",)]
        left = connection.execute("SELECT id, deliver_at FROM herald.scheduled").fetchall()
        assert [id for id, _ in left] == [last]
        # It is told after the commit that delivers.
        wait_until(lambda: engine(connection, "next_delivery") == left[0][1], what="the next time")


def test_many_scheduled_messages_slow_nobody(cluster, database):
    with cluster.connect(database) as connection, Probe(cluster, database, "probe") as probe:
        probe.more(200)
        before = list(probe.delays)
        connection.execute(
            "SELECT count(*) FROM herald.send_batch((SELECT jsonb_agg(jsonb_build_object("
            "'sender', 'a', 'content', n::text, 'topic', 'far', 'deliver_at', now() + '1 year'))"
            " FROM generate_series(1, 10000) n))"
        )
        connection.execute(
            "INSERT INTO herald.scheduled SELECT deliver_at + n * interval '1 second',"
            " herald.uuid_v7(), topic, at, sender, recipient, message_type, content, metadata,"
            " conversation, reply_to, priority, ordering_key, expires_at, workspace,"
            " idempotency_key, is_json FROM (SELECT * FROM herald.scheduled LIMIT 1) one,"
            " generate_series(1, %s) n",
            [FAR_AHEAD - 10_000],
        )
        connection.execute("ANALYZE herald.scheduled")
        probe.forget()
        probe.more(200)
        after = list(probe.delays)
        with Ear(cluster, database, "soon") as ear:
            schedule(connection, "soon", 0.2, "soon")
            ear.wait_for(1, 5)
    tell("none scheduled", before)
    tell(f"{FAR_AHEAD} scheduled", after)
    assert quantile(after, 0.5) < 2 * quantile(before, 0.5) + 0.002
    assert quantile(after, 0.9) < 0.050


def test_cancel_of_a_message_that_is_being_delivered_or_locked(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as locker,
        Ear(cluster, database, "news") as ear,
    ):
        kept, cancelled = schedule(connection, "kept", 2), schedule(connection, "cancelled", 2)
        assert locker.execute("SELECT herald.cancel(%s)", [cancelled]).fetchone()[0]
        # Its time comes while the cancellation is open: the other one isn't kept waiting.
        ear.wait_for(1)
        locker.rollback()
        ear.wait_for(2)
        assert heard_contents(ear) == ["kept", "cancelled"]
        assert not connection.execute("SELECT herald.cancel(%s)", [kept]).fetchone()[0]

        again = schedule(connection, "locked", 2)
        locker.execute("SELECT FROM herald.scheduled WHERE id = %s FOR UPDATE", [again])
        connection.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("SELECT herald.cancel(%s)", [again])
        schedule(connection, "after", 2.1)
        ear.wait_for(3)
        locker.execute("SELECT herald.cancel(%s)", [again])
        locker.commit()
        schedule(connection, "end", 0.1)
        ear.wait_for(4)
        assert heard_contents(ear)[2:] == ["after", "end"]


def test_an_old_snapshot_does_not_slow_deliveries(cluster, database):
    """What was delivered stays as dead rows while it is held; the dispatcher doesn't walk over
    them each time."""
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as old,
        Ear(cluster, database, "news") as ear,
    ):
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM herald.scheduled")
        for _ in range(2):
            connection.execute(
                "SELECT count(*) FROM herald.send_batch((SELECT jsonb_agg(jsonb_build_object("
                "'sender', 'a', 'content', n::text, 'topic', 'bulk',"
                " 'deliver_at', now() + '100 ms')) FROM generate_series(1, 5000) n))"
            )
        wait_until(
            lambda: connection.execute("SELECT count(*) = 0 FROM herald.scheduled").fetchone()[0],
            what="the delivery of all",
        )
        begin = {}
        for number in range(20):
            schedule(connection, str(number), 0.001)
            begin[number] = time.monotonic()
            ear.wait_for(number + 1)
        delays = [ear.heard[number][0] - begin[number] for number in range(20)]
        tell("with an old snapshot", delays)
        assert quantile(delays, 0.5) < 0.050
        old.rollback()


def test_the_schedule_is_in_a_dump(cluster, database):
    from test_dump import piped_custom

    restored = cluster.create_database(extensions=())
    try:
        with cluster.connect(database) as connection:
            later = schedule(connection, "later", 3600)
            schedule(connection, "soon", 10, "soon")
            kept = connection.execute("SELECT * FROM herald.scheduled ORDER BY id").fetchall()
        piped_custom(cluster, database, restored)
        with cluster.connect(restored) as connection, Ear(cluster, restored, "soon") as ear:
            assert connection.execute("SELECT * FROM herald.scheduled ORDER BY id").fetchall() == kept
            dispatcher(connection)
            ear.wait_for(1)
            assert heard_contents(ear) == ["soon"]
            assert connection.execute("SELECT herald.cancel(%s)", [later]).fetchone()[0]
    finally:
        cluster.drop_database(restored)
