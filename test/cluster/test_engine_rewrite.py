"""Segments of which little is kept are written anew: the disk follows what is kept, nothing is lost,
nobody waits; and what is purged is in no file any more."""

import random
import secrets
from pathlib import Path

import psycopg
import pytest

from ear import dispatcher
from herald import Cluster, wait_until
from probe import Probe, tell
from standby import Standby
from test_engine_segments import (
    MARGIN,
    MAX_HOLD,
    contents,
    disk_bytes,
    send,
    set_for_keeper,
    wake_keeper,
)

pytestmark = pytest.mark.tier("engine")

EVERYTHING = "SELECT count(*), md5(string_agg(herald.envelope(m)::text, '' ORDER BY m.pos))"


def fill(connection, count=20_000):
    """Segment 0: much of topic short, little of topic long, with contents of all sizes."""
    connection.execute(
        "INSERT INTO herald.message (topic, content)"
        " SELECT 'short', repeat('x', 200) FROM generate_series(1, %s)",
        [count],
    )
    numbers = random.Random(count)
    for size in (0, 10, 3_000, 100_000, 1_000_000):
        for kind, text in (("y", "y" * size), ("random", numbers.randbytes(size // 2).hex())):
            connection.execute(
                "SELECT herald.send_message('s', 'r', %s, topic => 'long', conversation => 'c',"
                " metadata => '{\"a\": 1}', idempotency_key => %s)",
                [text, f"{count} {size} {kind}"],
            )
            send(connection, "short", text)


def of_long(connection):
    """All that there is of topic long, by each index."""
    return [
        connection.execute(f"{EVERYTHING} FROM herald.messages m WHERE {condition}").fetchone()
        for condition in (
            "topic = 'long'",
            "conversation = 'c'",
            "pos > 0 AND topic = 'long'",
            "id IN (SELECT id FROM herald.message WHERE topic = 'long')",
        )
    ]


def close_segment(connection):
    connection.execute("SELECT herald.start_segment()")
    send(connection, "short", "the next segment")


def let_short_go(connection, before=1_000_000_000):
    connection.execute("SELECT herald.trim('short', %s)", [before])
    wake_keeper(connection)


def rewriting(connection, number=0):
    return connection.execute(
        "SELECT rewriting FROM herald.segments WHERE number = %s", [number]
    ).fetchone()[0]


def exists(connection, table):
    return connection.execute("SELECT to_regclass(%s)", [table]).fetchone()[0] is not None


def await_small(connection, number=0, most=4_000_000):
    wait_until(
        lambda: disk_bytes(connection, number) < most and not exists(connection, "herald.rewrite_0"),
        what=f"the rewriting of segment {number}",
    )


@pytest.fixture
def small(cluster, database):
    """A database whose segments are worth rewriting when they are small."""
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_size = '16MB'")
    return database


def test_what_is_kept_moves_and_nobody_notices(cluster, small):
    with cluster.connect(small) as connection:
        fill(connection)
        close_segment(connection)
        before = of_long(connection)
        counters = "SELECT * FROM herald.topics WHERE name = 'long'"
        counted = connection.execute(counters).fetchall()
        assert before[0][0] == 10 and len(set(before)) == 1
        assert disk_bytes(connection, 0) > 10_000_000
        with (
            Probe(cluster, small, "probe") as listening,
            Probe(cluster, small, "probe 2", by_read=True) as reading,
        ):
            let_short_go(connection)
            await_small(connection)
            for probe in (listening, reading):
                probe.more(10)
        tell("LISTEN", listening.delays)
        tell("read", reading.delays)
        assert max(listening.arrivals + reading.arrivals) <= MAX_HOLD + MARGIN
        assert of_long(connection) == before
        assert connection.execute(counters).fetchall() == counted
        (again,) = connection.execute(
            "SELECT herald.send_message('s', 'r', '', topic => 'long', idempotency_key => '20000 10 y')"
            " = (SELECT id FROM herald.messages WHERE idempotency_key = '20000 10 y')"
        ).fetchone()
        assert again, "an idempotency key is still known"
        assert not rewriting(connection)
        assert connection.execute("SELECT pg_catalog.count(*) FROM herald.message_0").fetchone() == (10,)


def test_a_topic_of_seconds_beside_one_of_a_year(cluster, small):
    """The disk is bounded by what is kept and a few segments, whatever has passed through."""
    with cluster.connect(small) as connection:
        connection.execute("SELECT herald.set_retention('short', max_messages => 10)")
        connection.execute("SELECT herald.set_retention('long', max_age => '1 year')")
        for number in range(6):
            fill(connection, 15_000 + number)
            close_segment(connection)
        before = of_long(connection)
        assert before[0][0] == 60
        wake_keeper(connection)
        for number in range(6):
            await_small(connection, number)
        assert of_long(connection) == before


def test_a_segment_in_use_does_not_hold_up_others(cluster, small):
    with cluster.connect(small) as connection, cluster.connect(small, autocommit=False) as user:
        for count in (20_000, 20_001):
            fill(connection, count)
            close_segment(connection)
        before = of_long(connection)
        user.execute("SELECT FROM herald.message_0 LIMIT 1")
        let_short_go(connection, 2_000_000_000)
        await_small(connection, 1)
        assert rewriting(connection, 0) and disk_bytes(connection, 0) > 10_000_000
        user.commit()
        wake_keeper(connection)
        await_small(connection, 0)
        assert of_long(connection) == before


def test_who_has_an_old_snapshot_reads_what_he_has_read(cluster, small):
    with cluster.connect(small) as connection, cluster.connect(small) as old:
        fill(connection)
        close_segment(connection)
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        query = f"{EVERYTHING} FROM herald.messages m"
        seen = old.execute(query).fetchone()
        assert seen[0] == 20_021
        let_short_go(connection)
        waiting = "SELECT rewriting, sessions FROM herald.segments WHERE number = 0"
        wait_until(
            lambda: connection.execute(waiting).fetchone() == (True, [old.info.backend_pid]),
            what="the wait for an old snapshot",
        )
        assert old.execute(query).fetchone() == seen
        assert disk_bytes(connection, 0) > 10_000_000
        old.execute("COMMIT")
        wake_keeper(connection)
        await_small(connection)


def copied(cluster, database, connection):
    """Somebody who has the books, so that the copy is made and waits for him."""
    holder = cluster.connect(database, autocommit=False)
    let_short_go(connection)
    holder.execute("SELECT herald.take_books(true)")
    wait_until(
        lambda: connection.execute(
            "SELECT coalesce((SELECT pg_relation_size(t) > 0 FROM herald.rewrite_tables() t), false)"
        ).fetchone()[0],
        what="the copy",
    )
    return holder


def test_a_crash_between_the_steps():
    with Cluster("rewrite") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            set_for_keeper(connection, "segment_size = '16MB'")
            fill(connection)
            close_segment(connection)
            before = of_long(connection)
            holder = copied(cluster, database, connection)
            cluster.kill9()
            holder.close()
        cluster.start()
        with cluster.connect(database) as connection:
            assert of_long(connection) == before
            wake_keeper(connection)
            await_small(connection)
            assert of_long(connection) == before


def test_a_restore_goes_first(cluster, small):
    """The keeper gives the segment up for whoever wants to write to it."""
    with cluster.connect(small) as connection:
        fill(connection)
        close_segment(connection)
        before = contents(connection, "long")
        holder = copied(cluster, small, connection)
        holder.execute("SET statement_timeout = '10s'")
        holder.execute(
            "INSERT INTO herald.restore (pos, id, topic, at, message_type, content, priority, is_json)"
            " VALUES (999999999, gen_random_uuid(), 'long', now(), 'notification', 'back', 0, false)"
        )
        holder.commit()
        assert contents(connection, "long") == [*before, "back"]
        wake_keeper(connection)
        await_small(connection)
        assert contents(connection, "long") == [*before, "back"]


def test_the_extension_is_dropped_between_the_steps(cluster):
    database = cluster.create_database()
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_size = '16MB'")
        fill(connection)
        close_segment(connection)
        holder = copied(cluster, database, connection)
        holder.close()
        connection.execute("SET statement_timeout = '20s'")
        connection.execute("DROP EXTENSION pg_herald CASCADE")
        left = "SELECT relname FROM pg_class WHERE relname ~ '^(message|rewrite)_[0-9]'"
        assert connection.execute(left).fetchall() == []
    cluster.drop_database(database)


def test_a_standby_follows():
    with Cluster("primary") as cluster, Standby(cluster) as standby:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            dispatcher(connection)
            set_for_keeper(connection, "segment_size = '16MB'")
            fill(connection)
            close_segment(connection)
            before = of_long(connection)
            standby.catch_up()
            with standby.connect(database) as reader:
                assert of_long(reader) == before
                let_short_go(connection)
                await_small(connection)
                standby.catch_up()
                assert of_long(reader) == before
                assert disk_bytes(reader, 0) < 4_000_000


def files_with(cluster, connection, *needles):
    """Names of those of these byte strings that are in a file of the database."""
    connection.execute("CHECKPOINT")
    (folder,) = connection.execute(
        "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database"
        " WHERE datname = current_database()"
    ).fetchone()
    found = set()
    for path in Path(folder).iterdir():
        data = path.read_bytes()
        found |= {needle for needle in needles if needle.encode() in data}
    return found


def test_what_is_purged_is_in_no_file(cluster, small):
    def mark(name):
        return f"{name}-{secrets.token_hex(8)}"

    content, large, meta, key, conversation, sender, later, trimmed, payload, small_payload = marks = [
        mark(name)
        for name in (
            "content", "large", "meta", "key", "talk", "sender", "later", "trimmed", "payload",
            "small",
        )
    ]  # fmt: skip
    with cluster.connect(small) as connection:
        send(connection, "secret", trimmed)
        connection.execute("SELECT herald.trim('secret', 9007199254740991)")
        connection.execute(
            "SELECT herald.send_message(%s, NULL, %s, topic => 'secret', conversation => %s,"
            " metadata => %s, idempotency_key => %s)",
            [sender, content, conversation, f'{{"m": "{meta}"}}', key],
        )
        send(connection, "secret", large + secrets.token_hex(50_000))
        connection.execute(
            "SELECT herald.send_message(NULL, NULL, %s, topic => 'secret',"
            " deliver_at => now() + interval '1 hour')",
            [later],
        )
        send(connection, "other", "kept", "k" * 10_000)
        put = "SELECT herald.put_payload(convert_to(%s, 'UTF8'), 'text/plain', 'none')"
        ((secret,), (shared,)) = (
            connection.execute(put, [text]).fetchone() for text in (payload * 1000, "shared")
        )
        (tiny,) = connection.execute(
            "SELECT herald.put_payload(convert_to(%s, 'UTF8'), 'text/plain', 'none')", [small_payload]
        ).fetchone()
        connection.execute("SELECT herald.send_payload(%s, 'secret')", [tiny])
        for one, topic in ((secret, "secret"), (shared, "secret"), (shared, "other")):
            connection.execute("SELECT herald.send_payload(%s, %s)", [one, topic])
        connection.execute("ANALYZE")
        assert files_with(cluster, connection, *marks) == set(marks)
        assert connection.execute("SELECT herald.purge('secret')").fetchone() == (6,)
        assert contents(connection, "secret") == []
        purges = "SELECT count(*) FROM herald.purges"
        wait_until(lambda: connection.execute(purges).fetchone() == (0,), what="the end of the purge")
        assert files_with(cluster, connection, *marks) == set()
        assert contents(connection, "other")[:2] == ["kept", "k" * 10_000]
        read = "SELECT convert_from(herald.payload_read(%s), 'UTF8')"
        assert connection.execute(read, [shared]).fetchone() == ("shared",)
        with pytest.raises(psycopg.errors.NoDataFound):
            connection.execute(read, [secret])
        send(connection, "secret", "new")
        assert contents(connection, "secret") == ["new"]
        (told,) = connection.execute("SELECT why FROM herald.gap('secret', 1)").fetchone()
        assert told == "dropped"


def test_a_purge_waits_for_an_old_snapshot(cluster, small):
    needle = secrets.token_hex(16)
    with cluster.connect(small) as connection, cluster.connect(small) as old:
        send(connection, "secret", needle)
        send(connection, "other", "kept")
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM herald.messages")
        connection.execute("SELECT herald.purge('sec*')")
        purges = "SELECT topics, segments FROM herald.purges"
        waiting = "SELECT sessions FROM herald.segments WHERE rewriting"
        wait_until(
            lambda: connection.execute(waiting).fetchone() == ([old.info.backend_pid],),
            what="the wait for an old snapshot",
        )
        assert connection.execute(purges).fetchall() == [("sec*", [0])]
        assert files_with(cluster, connection, needle) == {needle}
        old.execute("COMMIT")
        wake_keeper(connection)
        wait_until(lambda: not connection.execute(purges).fetchall(), what="the end of the purge")
        assert files_with(cluster, connection, needle) == set()


def test_who_may_purge(cluster, small):
    with cluster.connect(small) as connection:
        connection.execute("CREATE ROLE nobody_purges")
        connection.execute("GRANT USAGE ON SCHEMA herald TO nobody_purges")
        connection.execute("SET ROLE nobody_purges")
        for statement in ("SELECT herald.purge('*')", "SELECT herald.rewrite_table('herald.message_0')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY nobody_purges; DROP ROLE nobody_purges")
