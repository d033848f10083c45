"""Tables of payloads of which little is needed are written anew, as segments are: the disk follows
what is needed, nothing is lost, nobody waits."""

import psycopg
import pytest

from herald import Cluster, wait_until
from probe import Probe, tell
from test_engine_payloads import (
    CHUNK,
    begin_segment,
    noise,
    put,
    read,
    scalar,
    send,
    state,
    tables,
    wake_keeper,
)
from test_engine_rewrite import files_with
from test_engine_segments import MARGIN, MAX_HOLD, set_for_keeper

pytestmark = pytest.mark.tier("engine")

EVERYTHING = 9007199254740991  # a position behind all messages


@pytest.fixture
def small(cluster, database):
    """A database whose tables are worth rewriting when they are small."""
    with cluster.connect(database) as connection:
        set_for_keeper(connection, "segment_size = '16MB'")
    return database


def fill(connection, seed=1):
    """Much of topic short, little of topic long, one of both and one in no message: of the last
    three {payload: content}."""
    kept = {}
    for number in range(12):
        send(connection, put(connection, noise(1_000_000, seed + number), "none"), "short")
        content = noise(10 ** (number % 6), seed - number) * (number + 1)
        payload = put(connection, content, ("none", "gzip", "zstd")[number % 3])
        kept[payload] = content
        if number == 1:
            send(connection, payload, "short")
        if number > 0:
            send(connection, payload, "long")
    return kept


def let_short_go(connection):
    connection.execute("SELECT herald.trim('short', %s)", [EVERYTHING])


def size(connection, number=0):
    return scalar(
        connection, "SELECT disk_bytes FROM herald.payload_segments WHERE number = %s", number
    )


def await_small(connection, number=0, most=4_000_000):
    wait_until(lambda: size(connection, number) < most, what=f"the rewriting of payload_{number}")
    assert not rewriting(connection, number)


def rewriting(connection, number=0):
    return scalar(
        connection, "SELECT rewriting FROM herald.payload_segments WHERE number = %s", number
    )


def check(connection, kept):
    for payload, content in kept.items():
        assert read(connection, payload) == content
        assert read(connection, payload, len(content) // 2, 10) == content[len(content) // 2 :][:10]


def test_what_is_needed_moves_and_nobody_notices(cluster, small):
    with cluster.connect(small) as connection:
        kept = fill(connection)
        gone = scalar(connection, "SELECT payload FROM herald.messages WHERE topic = 'short' LIMIT 1")
        begin_segment(connection)
        assert size(connection) > 12_000_000
        with Probe(cluster, small, "probe") as sending:
            let_short_go(connection)
            await_small(connection)
            check(connection, kept)
            sending.more(10)
        tell("LISTEN", sending.delays)
        assert max(sending.arrivals) <= MAX_HOLD + MARGIN
        assert tables(connection)[0] == "uploads"
        assert state(connection, gone) == "expired"
        with pytest.raises(psycopg.errors.NoDataFound):
            read(connection, gone)
        valid = "SELECT bool_and(indisvalid AND indisready) FROM pg_index WHERE indrelid = %s::regclass"
        assert scalar(connection, valid, "herald.payload_0")
        assert scalar(connection, "SELECT count(*) FROM herald.rewrite_tables()") == 0


def test_a_large_one_is_copied_in_many_steps(cluster, small):
    """Meanwhile it is read, and the keeper's other duties are done."""
    with cluster.connect(small) as connection:
        kept = {}
        for number in range(90):
            payload = put(connection, noise(1_000_000, number), "none")
            send(connection, payload, "long" if number % 5 < 2 else "short")
            if number % 5 < 2:
                kept[payload] = noise(1_000_000, number)
        begin_segment(connection)
        connection.execute("SELECT herald.set_retention('news', max_messages => 3)")
        let_short_go(connection)
        sent = 0
        while size(connection) > 60_000_000:
            connection.execute("SELECT herald.send_message(NULL, NULL, 'x', topic => 'news')")
            check(connection, dict([list(kept.items())[sent % len(kept)]]))
            sent += 1
        check(connection, kept)
        news = "SELECT messages FROM herald.topics WHERE name = 'news'"
        wait_until(lambda: scalar(connection, news) <= 3, what="the rule's turn")


def test_a_purge_takes_what_had_expired_before(cluster, small):
    mark = "what nobody may keep"
    purges = "SELECT count(*) FROM herald.purges"
    with cluster.connect(small) as connection:
        secret = put(connection, (mark * 20_000).encode(), "none")
        send(connection, secret, "secret")
        kept = put(connection, noise(1_500_000), "none")
        send(connection, kept, "long")
        begin_segment(connection)
        connection.execute("SELECT herald.trim('secret', %s)", [EVERYTHING])
        wait_until(lambda: state(connection, secret) == "expired", what="the look")
        assert files_with(cluster, connection, mark) == {mark}, "most of the table is needed"
        connection.execute("SELECT herald.purge('secret')")
        wait_until(lambda: scalar(connection, purges) == 0, what="the purge")
        assert files_with(cluster, connection, mark) == set()
        check(connection, {kept: noise(1_500_000)})
        connection.execute("SELECT herald.purge('secret')")
        assert scalar(connection, "SELECT cardinality(tables) FROM herald.purge") in (0, None), (
            "it has gone"
        )


def test_uploads_that_were_given_up_leave_the_disk(cluster, small):
    with cluster.connect(small) as connection:
        kept = put(connection, noise(100_000), "none")
        send(connection, kept, "long")
        for seed in range(12):
            upload = scalar(connection, "SELECT herald.payload_open(compression => 'none')")
            connection.execute("SELECT herald.payload_write(%s, %s)", [upload, noise(1_000_000, seed)])
            connection.execute("SELECT herald.payload_abort(%s)", [upload])
        begin_segment(connection)
        wake_keeper(connection)
        await_small(connection)
        check(connection, {kept: noise(100_000)})
        assert state(connection, upload) == "error"
        counted = "SELECT payloads FROM herald.payload_segments WHERE number = 0"
        assert scalar(connection, counted) == 1


def test_a_topic_of_seconds_beside_one_of_a_year(cluster, small):
    """The disk is bounded by what is needed, whatever has passed through."""
    with cluster.connect(small) as connection:
        connection.execute("SELECT herald.set_retention('short', max_messages => 1)")
        connection.execute("SELECT herald.set_retention('long', max_age => '1 year')")
        kept = {}
        for number in range(4):
            kept |= fill(connection, 100 * number)
            begin_segment(connection)
        wake_keeper(connection)
        for number in range(3):
            await_small(connection, number)
        check(connection, kept)
        connection.execute("SELECT herald.reset_retention('long')")
        connection.execute("UPDATE herald.payload SET expires_at = now()")
        connection.execute("SELECT herald.trim('*', %s)", [EVERYTHING])
        wait_until(lambda: not {0, 1, 2} & set(tables(connection)), what="the end of the tables")
        assert scalar(connection, "SELECT count(*) FROM herald.payload_book WHERE segment < 3") == 0


def test_uploads_that_expire_leave_the_disk(cluster, small):
    """Though a payload of their table is kept."""
    with cluster.connect(small) as connection:
        content = noise(CHUNK)
        payload = put(connection, content)
        send(connection, payload, "long")
        for number in range(6):
            put(connection, noise(1_000_000, number), "none")
        begin_segment(connection)
        assert size(connection) > 6_000_000
        connection.execute("UPDATE herald.payload SET expires_at = now()")
        wake_keeper(connection)
        await_small(connection, most=1_000_000)
        check(connection, {payload: content})


def test_who_forwards_one_keeps_it(cluster, small):
    with (
        cluster.connect(small) as connection,
        cluster.connect(small, autocommit=False) as sender,
    ):
        fill(connection)
        content = noise(3 * CHUNK, 77)
        forwarded = put(connection, content)
        send(connection, forwarded, "short")
        begin_segment(connection)
        send(sender, forwarded, "forwarded")
        let_short_go(connection)
        others = "SELECT count(*) FROM herald.payloads WHERE state = 'expired'"
        wait_until(lambda: scalar(connection, others) == 12, what="the keeper's look")
        assert state(connection, forwarded) == "complete"
        assert size(connection) > 12_000_000, "it is not written anew while one is in use"
        sender.commit()
        wake_keeper(connection)
        await_small(connection)
        check(connection, {forwarded: content})


def test_an_upload_goes_on_in_a_table_that_is_written_anew(cluster, small):
    with cluster.connect(small) as connection:
        kept = fill(connection)
        content = noise(4 * CHUNK + 5, 99)
        upload = scalar(connection, "SELECT herald.payload_open()")
        write = "SELECT herald.payload_write(%s, %s)"
        scalar(connection, write, upload, content[: CHUNK + 1])
        begin_segment(connection)
        let_short_go(connection)
        await_small(connection)
        scalar(connection, write, upload, content[CHUNK + 1 :])
        scalar(connection, "SELECT herald.payload_close(%s)", upload)
        send(connection, upload, "long")
        check(connection, kept | {upload: content})


def test_who_has_an_old_snapshot_reads_what_he_has_read(cluster, small):
    with cluster.connect(small) as connection, cluster.connect(small) as old:
        kept = fill(connection)
        begin_segment(connection)
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        messages = "SELECT count(*) FROM herald.messages WHERE topic = 'short'"
        assert scalar(old, messages) == 13
        let_short_go(connection)
        waiting = "SELECT sessions FROM herald.payload_segments WHERE rewriting"
        wait_until(
            lambda: scalar(connection, waiting) == [old.info.backend_pid],
            what="the wait for an old snapshot",
        )
        assert scalar(old, messages) == 13
        check(old, kept)
        assert size(connection) > 12_000_000
        old.execute("COMMIT")
        wake_keeper(connection)
        await_small(connection)
        check(connection, kept)


def copied(cluster, database, connection):
    """Somebody who has the books, so that the copy is made and waits for him."""
    with cluster.connect(database) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM herald.messages")
        let_short_go(connection)
        wait_until(lambda: rewriting(connection), what="the keeper's look")
        holder = cluster.connect(database, autocommit=False)
        holder.execute("SELECT herald.take_books(true)")
    wake_keeper(connection)
    wait_until(
        lambda: scalar(
            connection,
            "SELECT coalesce((SELECT pg_relation_size(t) > 0 FROM herald.rewrite_tables() AS t"
            " WHERE t::text ~ 'rewrite_payload_0'), false)",
        ),
        what="the copy",
    )
    return holder


def test_a_crash_between_the_steps():
    with Cluster("rewrite") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            set_for_keeper(connection, "segment_size = '16MB'")
        with cluster.connect(database) as connection:
            kept = fill(connection)
            begin_segment(connection)
            holder = copied(cluster, database, connection)
            cluster.kill9()
            holder.close()
        cluster.start()
        with cluster.connect(database) as connection:
            check(connection, kept)
            wake_keeper(connection)
            await_small(connection)
            check(connection, kept)
            assert scalar(connection, "SELECT count(*) FROM herald.rewrite_tables()") == 0


def test_who_writes_goes_first(cluster, small):
    """The keeper gives the table up for an upload that goes on."""
    with cluster.connect(small) as connection:
        kept = fill(connection)
        upload = scalar(connection, "SELECT herald.payload_open()")
        begin_segment(connection)
        holder = copied(cluster, small, connection)
        connection.execute("SET statement_timeout = '10s'")
        scalar(connection, "SELECT herald.payload_write(%s, 'late')", upload)
        holder.rollback()
        wake_keeper(connection)
        await_small(connection)
        scalar(connection, "SELECT herald.payload_close(%s)", upload)
        check(connection, kept | {upload: b"late"})
