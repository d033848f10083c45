"""The disk of large tables that nothing needs comes back little by little, whatever happens in
between; at once, if somebody wants it so."""

import time

import psycopg
import pytest

from herald import Cluster, wait_until
from standby import Standby
from test_engine_payloads import noise, put, scalar, set_timeout
from test_engine_payloads import send as send_payload
from test_engine_rewrite import files_with
from test_engine_segments import (
    await_removal,
    contents,
    disk_bytes,
    let_go_of_segment_0,
    segments,
    send,
    set_for_keeper,
    wake_keeper,
)
from test_engine_tiers import change_tier

pytestmark = pytest.mark.tier("engine")

STEP = 16 << 20  # at most, of little waste
MARK = "a content that nothing needs"


def waste(connection):
    """(table_name, disk_bytes, sessions), or None if all is given back."""
    return connection.execute(
        "SELECT table_name::text, disk_bytes, sessions FROM herald.waste"
    ).fetchone()


def fill(connection, megabytes=48):
    """Segment 0, with values that stand apart."""
    connection.execute(
        "INSERT INTO herald.message (topic, content) SELECT 'gone', %s || (SELECT"
        " string_agg(md5(i::text), '') FROM generate_series(1, 150) i)"
        " FROM generate_series(1, %s) n",
        [MARK, megabytes * 200],
    )


def make_waste(connection, megabytes=48):
    fill(connection, megabytes)
    return let_it_go(connection)


def let_it_go(connection):
    let_go_of_segment_0(connection)
    await_removal(connection)
    return waste(connection)


def await_end(connection):
    wait_until(lambda: waste(connection) is None, what="the end of the waste")


def test_it_comes_back_step_by_step(cluster, database):
    with cluster.connect(database) as connection:
        table, size, sessions = make_waste(connection, 96)
        assert size > 4 * STEP and sessions is None
        sizes, seen_at = [size], time.monotonic()
        while (now := waste(connection)) is not None:
            if now[1] < sizes[-1]:
                steps = 1 + int(time.monotonic() - seen_at)  # one a second
                assert sizes[-1] - now[1] <= steps * STEP + 1_000_000  # the maps of free space go too
                sizes.append(now[1])
                seen_at = time.monotonic()
                try:  # whoever looks at all tables meets nothing that is broken
                    connection.execute(f"ANALYZE {table}")
                    connection.execute(f"VACUUM {table}")
                    connection.execute(f"SELECT max(length(content)) FROM {table}")
                except psycopg.errors.UndefinedTable:
                    break
        assert len(sizes) > 3
        await_end(connection)
        assert contents(connection, "*") == ["first of segment 1"]


def test_nobody_sees_it(cluster, database):
    with cluster.connect(database) as connection:
        table, _, _ = make_waste(connection)
        assert 0 not in segments(connection)
        assert contents(connection, "*") == ["first of segment 1"]
        connection.execute("SET ROLE pg_read_all_stats")  # any that is not its owner
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT FROM {table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT herald.drop_waste(%s)", [table])


def end_keeper(cluster, connection):
    connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'herald keeper' AND datname = current_database()"
    )


def crash(cluster, connection):
    cluster.kill9()
    cluster.start()


@pytest.mark.parametrize("interrupt", [end_keeper, crash])
def test_another_keeper_goes_on(interrupt):
    with Cluster("waste") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            _, size, _ = make_waste(connection, 160)  # ten steps: the next keeper may be quick
            wait_until(lambda: waste(connection)[1] < size, what="a step")
            interrupt(cluster, connection)
        with cluster.connect(database) as connection:
            assert STEP < waste(connection)[1] < size
            await_end(connection)
            send(connection, "kept", "2")
            assert contents(connection, "*") == ["first of segment 1", "2"]


def let_more_come_and_go(connection, stays):
    """More waste, beside that table."""
    connection.execute(
        "INSERT INTO herald.message (topic, content)"
        " SELECT 'gone', repeat('x', 1000) FROM generate_series(1, 30000)"
    )
    connection.execute("SELECT herald.start_segment()")
    send(connection, "kept", "new")
    connection.execute("SELECT herald.trim('*', first_pos) FROM herald.segments WHERE held_by = 'open'")
    wake_keeper(connection)
    there = "SELECT array_agg(table_name::text) FROM herald.waste"
    wait_until(lambda: len(scalar(connection, there)) == 2, what="more waste")
    wait_until(lambda: scalar(connection, there) == [stays], what="its end")


def test_who_has_it_open_is_named_and_waited_for(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as reader,
    ):
        table, _, _ = make_waste(connection)
        reader.execute(f"SELECT FROM {table} LIMIT 1")
        _, size, sessions = waste(connection)
        assert sessions == [reader.info.backend_pid]
        send(connection, "probe", "1")
        let_go = "SELECT herald.trim('probe', 9007199254740991)"
        assert connection.execute(let_go).fetchone() == (1,)
        wait_until(lambda: contents(connection, "probe") == [], what="a round of the keeper")
        assert waste(connection)[1] == size
        connection.execute("SELECT herald.maintain()")  # does not wait
        assert waste(connection)[1] == size
        let_more_come_and_go(connection, table)
        connection.execute("SELECT herald.purge('gone')")
        tables = "SELECT tables FROM herald.purges"
        name = table.removeprefix("herald.")
        wait_until(lambda: connection.execute(tables).fetchone() == ([name],), what="the purge's wait")
        reader.commit()
        wait_until(lambda: connection.execute(tables).fetchone() is None, what="the purge's end")
        assert waste(connection) is None


def test_what_others_make_of_it_keeps_it_and_nothing_else(cluster, database):
    with cluster.connect(database) as connection:
        table, _, _ = make_waste(connection)
        connection.execute(f"CREATE VIEW mine AS SELECT 1 FROM {table}")
        let_more_come_and_go(connection, table)
        connection.execute("SELECT herald.maintain()")
        assert waste(connection)[0] == table
        connection.execute("DROP VIEW mine")
        await_end(connection)


def test_maintain_gives_it_back_at_once(cluster, database):
    with cluster.connect(database) as connection:
        make_waste(connection, 160)

        def is_given_back():  # not while the keeper has it
            connection.execute("SELECT herald.maintain()")
            return waste(connection) is None

        wait_until(is_given_back, 5, "the disk")


def test_a_purge_leaves_none(cluster, database):
    purges = "SELECT count(*) FROM herald.purges"
    with cluster.connect(database) as connection:
        make_waste(connection, 160)
        assert files_with(cluster, connection, MARK) == {MARK}
        connection.execute("SELECT herald.purge('gone')")
        wait_until(lambda: connection.execute(purges).fetchone() == (0,), what="the end of the purge")
        assert waste(connection) is None
        assert files_with(cluster, connection, MARK) == set()


def test_what_a_purge_lets_go_of_is_no_waste(cluster, database):
    purges = "SELECT count(*) FROM herald.purges"
    with cluster.connect(database) as connection:
        fill(connection)
        assert connection.execute("SELECT herald.purge('gone')").fetchone() == (9600,)
        wait_until(lambda: connection.execute(purges).fetchone() == (0,), what="the end of the purge")
        assert waste(connection) is None
        assert files_with(cluster, connection, MARK) == set()


def test_a_view_keeps_a_large_segment_empty(cluster, database):
    with cluster.connect(database) as connection:
        fill(connection)
        connection.execute("CREATE VIEW mine AS SELECT * FROM herald.message_0")
        let_go_of_segment_0(connection)
        wait_until(
            lambda: connection.execute("SELECT count(*) FROM mine").fetchone() == (0,),
            what="the empty segment",
        )
        assert waste(connection) is None
        connection.execute("DROP VIEW mine")
        wake_keeper(connection)
        await_removal(connection)


def test_what_a_rewriting_leaves(cluster, database):
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_size = '16MB'")
        fill(connection)
        send(connection, "kept", "1", "2" * 100_000)
        connection.execute("SELECT herald.start_segment()")
        send(connection, "kept", "3")
        connection.execute("SELECT herald.trim('gone', 1000000000)")
        wait_until(lambda: waste(connection) is not None, what="the waste")
        assert disk_bytes(connection, 0) < 1_000_000
        assert contents(connection, "*") == ["1", "2" * 100_000, "3"]
        await_end(connection)
        assert contents(connection, "*") == ["1", "2" * 100_000, "3"]


def test_payloads(cluster, database):
    with cluster.connect(database) as connection:
        set_timeout(connection, 1)
    with cluster.connect(database) as connection:
        for seed in range(40):
            send_payload(connection, put(connection, noise(1_000_000, seed), "none"), "gone")
        let_go_of_segment_0(connection)
        held = "SELECT count(*) FROM herald.payloads WHERE expires_at IS NOT NULL"
        wait_until(lambda: scalar(connection, held) == 0, what="the look whether they were sent")
        wait_until(lambda: waste(connection) is not None, what="the waste")
        table, size, _ = waste(connection)
        assert size > STEP
        assert scalar(connection, "SELECT count(*) FROM herald.payload_chunk") == 0
        connection.execute(f"ANALYZE {table}")
        await_end(connection)


def test_the_extension_goes_with_it(cluster):
    database = cluster.create_database()
    with cluster.connect(database) as connection:
        make_waste(connection)
        connection.execute("DROP EXTENSION pg_herald CASCADE")
        left = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^waste_'")
        assert left.fetchall() == []
    cluster.drop_database(database)


def test_without_the_engine_maintain_sees_to_what_is_left():
    with Cluster("waste") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            make_waste(connection, 160)
        change_tier(cluster, False, "fast")
        with cluster.connect(database) as connection:
            assert waste(connection) is not None
            connection.execute("SELECT herald.maintain()")
            assert waste(connection) is None


def test_a_standby_follows():
    with Cluster("waste") as cluster, Standby(cluster) as standby:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            make_waste(connection, 160)
            standby.catch_up()
            with standby.connect(database) as reader:
                assert waste(reader)[0] == waste(connection)[0]
                await_end(connection)
                standby.catch_up()
                assert waste(reader) is None
