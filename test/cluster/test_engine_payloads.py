"""Payloads outlive crashes, leave with their messages, never while somebody uses them, and what is
damaged on disk is told, not given."""

import gzip
import hashlib
import random
import re
import threading

import psycopg
import pytest

from herald import Cluster, wait_until, work_directory
from standby import Standby
from test_engine_archive import file_system

pytestmark = pytest.mark.tier("engine")

CHUNK = 256 * 1024


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def scalar(connection, query, *arguments):
    row = connection.execute(query, arguments).fetchone()
    return row and row[0]


def put(connection, content, compression="zstd"):
    return scalar(connection, "SELECT herald.put_payload(%s, compression => %s)", content, compression)  # fmt: skip


def read(connection, payload, offset=0, length=None):
    return scalar(connection, "SELECT herald.payload_read(%s, %s, %s)", payload, offset, length)


def send(connection, payload, topic):
    return scalar(connection, "SELECT herald.send_payload(%s, %s)", payload, topic)


def state(connection, payload):
    return scalar(connection, "SELECT state FROM herald.payloads WHERE id = %s", payload)


def chunks(connection, payload):
    return scalar(connection, "SELECT count(*) FROM herald.payload_chunk WHERE payload = %s", payload)  # fmt: skip


def tables(connection):
    """{number: held_by}"""
    rows = connection.execute("SELECT number, held_by FROM herald.payload_segments")
    return dict(rows.fetchall())


def set_timeout(connection, seconds):
    """In this database, for sessions to come."""
    name = connection.info.dbname
    connection.execute(f"ALTER DATABASE \"{name}\" SET herald.upload_timeout = '{seconds}s'")


def wake_keeper(connection):
    connection.execute("SELECT herald.set_retention('nothing', max_messages => 1)")


def begin_segment(connection):
    """And lets the first message be in it."""
    connection.execute("SELECT herald.start_segment()")
    connection.execute("SELECT herald.send_message(NULL, NULL, 'x', topic => 'kept')")


def test_an_upload_goes_on_after_crashes():
    content = noise(40 * CHUNK)
    with Cluster("payloads") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            payload = scalar(connection, "SELECT herald.payload_open(bytes => %s)", len(content))
        generator = random.Random(3)
        for _ in range(4):
            with cluster.connect(database) as connection:
                end = scalar(connection, "SELECT bytes FROM herald.payloads WHERE id = %s", payload)
                assert read(connection, payload) == content[:end]
                for _ in range(generator.randrange(1, 6)):
                    part = content[end : end + generator.randrange(1, 3 * CHUNK)]
                    written = scalar(
                        connection, "SELECT herald.payload_write(%s, %s, %s)", payload, part, end
                    )
                    end += len(part)
                    assert written == end
                with connection.transaction(force_rollback=True):
                    connection.execute("SELECT herald.payload_write(%s, 'undone')", [payload])
                unfinished = cluster.connect(database, autocommit=False)
                unfinished.execute("SELECT herald.payload_write(%s, 'lost')", [payload])
                cluster.kill9()
                unfinished.close()
            cluster.start()
        with cluster.connect(database) as connection:
            stored = scalar(connection, "SELECT bytes FROM herald.payloads WHERE id = %s", payload)
            assert stored == end
            connection.execute(
                "SELECT herald.payload_write(%s, %s, %s)", [payload, content[end:], end]
            )
            digest = scalar(connection, "SELECT herald.payload_close(%s)", payload)
            assert digest == hashlib.sha256(content).digest()
            assert read(connection, payload) == content


def test_a_hundred_megabytes(cluster, database):
    content = noise(100_000_000)
    step = 1 << 20
    with cluster.connect(database) as connection:
        payload = scalar(connection, "SELECT herald.payload_open()")
        for at in range(0, len(content), step):
            connection.execute(
                "SELECT herald.payload_write(%s, %s, %s)", [payload, content[at : at + step], at]
            )
        digest = hashlib.sha256(content).digest()
        assert scalar(connection, "SELECT herald.payload_close(%s, %s)", payload, digest) == digest
        send(connection, payload, "large")
        assert b"".join(
            read(connection, payload, at, step) for at in range(0, len(content), step)
        ) == content  # fmt: skip
        assert read(connection, payload) == content


def test_stored_frames_are_a_stream(cluster, database):
    content = b"".join(b"line %d\n" % n for n in range(100_000))
    query = "SELECT start, bytes, data FROM herald.payload_stored(%s, %s, 100000)"
    with cluster.connect(database) as connection:
        payload = put(connection, content, "gzip")
        stream, end, pages = b"", 0, 0
        while end < len(content):
            for start, size, data in connection.execute(query, [payload, end]).fetchall():
                assert start == end
                stream, end = stream + data, end + size
            pages += 1
        assert gzip.decompress(stream) == content
        assert pages > 1 and len(stream) < len(content) / 2


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_damage_on_disk(compression):
    """A byte is changed in each chunk in turn; all other chunks stay readable."""
    content = noise(3 * CHUNK + 100)
    with Cluster("damage") as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            payload = put(connection, content, compression)
            send(connection, payload, "t")
            path = scalar(
                connection,
                "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class"
                " WHERE oid = 'herald.payload_0'::regclass",
            )
            connection.execute("CHECKPOINT")
        cluster.stop()
        file = cluster.data / path
        whole = file.read_bytes()
        for number in (0, 2):
            mark = content[number * CHUNK + CHUNK // 2 :][:64]
            at = whole.find(mark)
            assert at > 0, "noise is stored as it is"
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            cluster.start()
            with cluster.connect(database) as connection:
                start = number * CHUNK
                for query in ("payload_read(%s, %s, 1)", "payload_stored(%s, %s, 1)"):
                    with pytest.raises(psycopg.errors.DataCorrupted) as told:
                        connection.execute(f"SELECT * FROM herald.{query}", [payload, start])
                    text = f"{told.value.diag.message_primary} {told.value.diag.context}"
                    if "invalid page" not in text:  # then PostgreSQL's own checksum was first
                        wanted = rf"byte {start} of payload {payload} in herald.payload_0"
                        assert re.search(wanted, text), text
                with pytest.raises(psycopg.errors.DataCorrupted):
                    read(connection, payload)
                good = 1 if number == 0 else 0
                assert read(connection, payload, good * CHUNK, CHUNK) == content[
                    good * CHUNK : (good + 1) * CHUNK
                ]  # fmt: skip
            cluster.stop()
            file.write_bytes(whole)
        cluster.start()
        with cluster.connect(database) as connection:
            assert read(connection, payload) == content


def test_chunks_that_were_meddled_with(cluster, database):
    """By SQL, as somebody who may do everything could."""
    content = b"a" * (3 * CHUNK)
    changes = {
        "UPDATE herald.payload_0 SET data = set_byte(data, 5, 255 - get_byte(data, 5))": "damaged",
        "UPDATE herald.payload_0 SET checksum = checksum + 1": "damaged",
        "UPDATE herald.payload_0 SET bytes = bytes - 1": "damaged",
        "UPDATE herald.payload_0 SET bytes = 2000000000": "damaged",
        "UPDATE herald.payload_0 SET start = start + 1": "missing",
        "DELETE FROM herald.payload_0": "missing",
    }
    with cluster.connect(database) as connection:
        payload = put(connection, content)
        other = put(connection, content, "gzip")
        for change, why in changes.items():
            with connection.transaction(force_rollback=True):
                connection.execute(f"{change} WHERE payload = %s AND start = %s", [payload, CHUNK])
                with connection.transaction(force_rollback=True):
                    assert read(connection, payload, 0, CHUNK) == content[:CHUNK]
                with pytest.raises(psycopg.errors.DataCorrupted, match=f"byte {CHUNK} .*{why}"):
                    read(connection, payload)
        with connection.transaction(force_rollback=True):  # whole chunks of another payload
            connection.execute("DELETE FROM herald.payload_0 WHERE payload = %s", [payload])
            connection.execute("UPDATE herald.payload_0 SET payload = %s", [payload])
            with pytest.raises(psycopg.errors.DataCorrupted, match="byte 0 .*damaged"):
                read(connection, payload)
        assert read(connection, payload) == read(connection, other) == content


def test_dead_chunks_beside_the_living(cluster, database):
    """The scan notes them while it goes on, in memory that must last as long as the scan."""
    content = noise(4 * CHUNK)
    with cluster.connect(database) as connection:
        payload = put(connection, content)
        for _ in range(4):
            connection.execute(
                "WITH old AS (DELETE FROM herald.payload_0 RETURNING *)"
                " INSERT INTO herald.payload_0 SELECT * FROM old"
            )
            for _ in range(3):
                assert read(connection, payload) == content


def test_what_nobody_sends_expires_by_itself(cluster, database):
    with cluster.connect(database) as connection:
        set_timeout(connection, 1)
    with cluster.connect(database) as connection:
        sent = put(connection, b"sent")
        send(connection, sent, "t")
        later = put(connection, b"later")
        connection.execute(
            "SELECT herald.send_payload(%s, 't', deliver_at => now() + interval '1 day')", [later]
        )
        unsent = put(connection, b"unsent")
        open_one = scalar(connection, "SELECT herald.payload_open()")
        connection.execute("SELECT herald.payload_write(%s, 'x')", [open_one])
        wait_until(
            lambda: state(connection, unsent) == state(connection, open_one) == "expired",
            what="the expiry",
        )
        assert chunks(connection, unsent) == chunks(connection, open_one) == 0
        for payload in (unsent, open_one):
            with pytest.raises(psycopg.errors.NoDataFound):
                read(connection, payload)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="expired"):
            connection.execute("SELECT herald.payload_write(%s, 'y')", [open_one])
        assert (read(connection, sent), state(connection, later)) == (b"sent", "complete")
        left = connection.execute(
            "SELECT id, expires_at IS NULL, expires_at > now() + interval '23 hours'"
            " FROM herald.payloads WHERE state = 'complete' ORDER BY id"
        ).fetchall()
        assert left == [(sent, True, None), (later, False, True)]


def test_who_is_just_sending_one_keeps_it(cluster, database):
    """Though its time comes meanwhile, the sender is late, and it is the only one who knows."""
    with cluster.connect(database) as connection:
        set_timeout(connection, 1)
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as one,
        cluster.connect(database, autocommit=False) as other,
    ):
        payload, unsent = put(connection, b"held"), put(connection, b"unsent")
        send(one, payload, "one")
        other.execute("SET LOCAL lock_timeout = '1s'")  # senders of one payload don't wait
        send(other, payload, "other")
        wait_until(lambda: state(connection, unsent) == "expired", what="the expiry of another")
        assert state(connection, payload) == "complete"
        other.rollback()
        begin_segment(connection)
        connection.execute("SELECT herald.trim('*', 1000000000)")
        wake_keeper(connection)
        one.commit()
        assert read(connection, payload) == b"held"
        query = "SELECT expires_at IS NULL FROM herald.payloads WHERE id = %s"
        wait_until(lambda: scalar(connection, query, payload), what="the keeper's look")
        assert read(connection, payload) == b"held"
        assert 0 in tables(connection)


def test_they_leave_the_disk_with_their_messages(cluster, database):
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as reader,
    ):
        gone, forwarded = put(connection, noise(CHUNK)), put(connection, b"forwarded")
        for payload in (gone, forwarded):
            send(connection, payload, "gone")
        set_timeout(connection, 1)
        connection.execute("UPDATE herald.payload SET expires_at = now()")  # they are sent
        wake_keeper(connection)
        query = "SELECT count(*) FROM herald.payloads WHERE expires_at IS NOT NULL"
        wait_until(lambda: scalar(connection, query) == 0, what="the keeper's look")
        begin_segment(connection)
        send(connection, forwarded, "kept")
        connection.execute("SELECT herald.trim('gone', 1000000000)")
        with pytest.raises(psycopg.errors.NoDataFound):
            read(connection, gone)
        wait_until(lambda: tables(connection)[0] == "messages", what="the count")
        assert read(connection, forwarded) == b"forwarded"
        assert read(reader, forwarded) == b"forwarded"
        begin_segment(connection)
        connection.execute("SELECT herald.trim('kept', 2000000000)")
        wait_until(lambda: tables(connection)[0] is None, what="the keeper's look")
        wake_keeper(connection)
        assert 0 in tables(connection), "a reader uses it"
        # Nobody waits for it meanwhile.
        connection.execute("SET lock_timeout = '1s'")
        send(connection, put(connection, b"new"), "kept")
        reader.commit()
        wait_until(lambda: not {0, 1} & set(tables(connection)), what="the end of the tables")
        assert scalar(connection, "SELECT count(*) FROM herald.payloads WHERE segment < 2") == 0
        assert scalar(connection, "SELECT to_regclass('herald.payload_0')") is None


def test_who_forwards_one_keeps_it(cluster, database):
    """Though meanwhile all other messages go that it was in, and everything else of its segment."""
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as sender,
    ):
        payload = put(connection, b"forwarded")
        send(connection, payload, "gone")
        connection.execute("UPDATE herald.payload SET expires_at = now()")  # it is sent
        wake_keeper(connection)
        query = "SELECT expires_at IS NULL FROM herald.payloads WHERE id = %s"
        wait_until(lambda: scalar(connection, query, payload), what="the keeper's look")
        begin_segment(connection)
        send(sender, payload, "forwarded")
        begin_segment(connection)
        connection.execute("SELECT herald.trim('*', 1000000000)")
        wait_until(lambda: tables(connection)[0] is None, what="nothing that holds it")
        connection.execute("SELECT herald.maintain()")
        assert tables(connection)[0] is None, "but its sender"
        sender.commit()
        assert read(connection, payload) == b"forwarded"
        connection.execute("SELECT herald.maintain()")
        assert tables(connection)[0] == "messages"
        assert read(connection, payload) == b"forwarded"


def test_a_scheduled_message_keeps_its_payload(cluster, database):
    with cluster.connect(database) as connection:
        payload = put(connection, b"later")
        message = scalar(
            connection,
            "SELECT herald.send_payload(%s, 'later', deliver_at => now() + interval '2 seconds')",
            payload,
        )
        begin_segment(connection)
        connection.execute("SELECT herald.trim('*', 1000000000)")
        connection.execute("SELECT herald.maintain()")
        assert tables(connection)[0] in ("uploads", "scheduled")
        query = "SELECT payload FROM herald.message_by_id(%s)"
        wait_until(lambda: scalar(connection, query, message), what="the delivery")
        assert read(connection, payload) == b"later"


def test_large_payloads_begin_a_segment(cluster, database):
    with cluster.connect(database) as connection:
        connection.execute(f"ALTER DATABASE \"{database}\" SET herald.segment_size = '1MB'")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE backend_type = 'herald keeper' AND datname = current_database()"
        )
        send(connection, put(connection, noise(9_000_000), "none"), "t")
        wake_keeper(connection)
        wait_until(lambda: tables(connection)[0] == "uploads", what="the next segment")


def test_nobody_waits_for_the_first_payload_of_a_segment(cluster, database):
    with cluster.connect(database) as connection:
        begin_segment(connection)
        wait_until(lambda: 2 in tables(connection), what="the table made ahead")
        with (
            cluster.connect(database, autocommit=False) as one,
            cluster.connect(database, autocommit=False) as other,
        ):
            for session in (one, other):
                session.execute("SET LOCAL lock_timeout = '1s'")
                send(session, put(session, b"x"), "t")
            one.commit()
            other.commit()


def test_two_who_write_to_one_upload(cluster, database):
    """The second waits for the first, and is told where the end is then."""
    with (
        cluster.connect(database) as connection,
        cluster.connect(database, autocommit=False) as first,
    ):
        payload = scalar(connection, "SELECT herald.payload_open()")
        write = "SELECT herald.payload_write(%s, %s, 0)"
        first.execute(write, [payload, b"first"])
        second = Attempt(lambda: connection.execute(write, [payload, b"second"]))
        watcher = cluster.connect(database)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        pid = connection.info.backend_pid
        wait_until(lambda: scalar(watcher, waiting, pid) == 1, what="the second to wait")
        first.commit()
        failure = second.outcome()
        assert isinstance(failure, psycopg.errors.InvalidParameterValue)
        assert "which is 5" in str(failure)
        assert read(watcher, payload) == b"first"
        watcher.close()


def test_what_is_given_up_while_it_is_read(cluster, database):
    """It is gone for the reader, not damaged."""
    until_gone = (
        "DO $$ BEGIN PERFORM herald.send_message('reader', NULL, 'begins', topic => '{0}'); COMMIT;"
        " LOOP PERFORM herald.payload_read('{0}'); COMMIT; END LOOP; END $$"
    )
    begun = "SELECT count(*) FROM herald.wait_for(%s, 0, '30 seconds')"
    with cluster.connect(database) as connection, cluster.connect(database) as reader:
        for _ in range(200):
            payload = scalar(connection, "SELECT herald.payload_open()")
            connection.execute("SELECT herald.payload_write(%s, 'x')", [payload])
            reading = Attempt(lambda: reader.execute(until_gone.format(payload)))
            assert scalar(connection, begun, str(payload)) == 1
            connection.execute("SELECT herald.payload_abort(%s)", [payload])
            failure = reading.outcome()
            assert isinstance(failure, psycopg.errors.NoDataFound), failure


class Attempt(threading.Thread):
    """Does something meanwhile."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self._work, self._failure = work, None
        self.start()

    def run(self):
        try:
            self._work()
        except psycopg.Error as failure:
            self._failure = failure

    def outcome(self):
        """The error, or None."""
        self.join(30)
        assert not self.is_alive()
        return self._failure


def test_an_old_snapshot_is_no_hindrance(cluster, database):
    """A transaction with one reads and sends what was put after it was taken."""
    with cluster.connect(database) as connection, cluster.connect(database) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        payload = scalar(connection, "SELECT herald.payload_open()")
        part = noise(1000)
        for _ in range(500):
            connection.execute("SELECT herald.payload_write(%s, %s)", [payload, part])
        connection.execute("SELECT herald.payload_close(%s)", [payload])
        send(connection, payload, "t")
        assert read(old, payload) == part * 500
        send(old, payload, "of the old one")
        old.execute("COMMIT")
        query = "SELECT count(*) FROM herald.messages WHERE payload = %s"
        assert scalar(connection, query, payload) == 2


def test_a_standby_reads(seed):
    content = noise(2 * CHUNK, seed)
    with Cluster("primary") as primary, Standby(primary) as standby:
        primary_database = primary.create_database()
        with primary.connect(primary_database) as connection:
            payload = put(connection, content)
            send(connection, payload, "t")
            connection.execute("ALTER SYSTEM SET herald.audit = on")
            connection.execute("SELECT pg_reload_conf()")
        standby.catch_up()
        with standby.connect(primary_database) as connection:
            assert read(connection, payload) == content
            assert read(connection, payload, CHUNK - 1, 2) == content[CHUNK - 1 : CHUNK + 1]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                put(connection, b"x")
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("SELECT herald.payload_write(%s, 'x')", [payload])


def test_a_transfer_by_many_sessions_is_noted_once(cluster, database):
    """As the notifier's pool, or one in between, reads: each piece by whichever session is free."""
    random_of = random.Random(1)
    with cluster.connect(database) as connection:
        payload = put(connection, noise(40 * 1000), "none")
        send(connection, payload, "t")
        connection.execute(f'ALTER DATABASE "{database}" SET herald.audit = on')
        sessions = [cluster.connect(database) for _ in range(4)]
        ends = [0] * 6  # of transfers at the same time
        while any(end < 40_000 for end in ends):
            which = random_of.choice([i for i, end in enumerate(ends) if end < 40_000])
            read(random_of.choice(sessions), payload, ends[which], 1000)
            ends[which] += 1000
        query = "SELECT array_agg(\"offset\") FROM herald.payload_audit WHERE payload = %s"
        assert scalar(connection, query, payload) == [0] * 6
        # What is rolled back, or not known to be committed, is noted again where it goes on.
        one, other = sessions[:2]
        one.autocommit = False
        read(one, payload, 0, 10)
        read(other, payload, 10, 10)
        one.rollback()
        read(other, payload, 20, 10)
        assert scalar(connection, query, payload) == [0] * 6 + [10]
        for session in sessions:
            session.close()


class Worker(threading.Thread):
    """Puts, uploads, sends and reads at random until the end comes."""

    def __init__(self, cluster, database, seed, contents):
        super().__init__(daemon=True)
        self._connection = cluster.connect(database)
        self._random, self._contents = random.Random(seed), contents
        self._ended = threading.Event()
        self.failure, self.sent = None, 0
        self.start()

    def run(self):
        try:
            while not self._ended.is_set():
                self._step()
        except psycopg.OperationalError:
            pass  # the server was killed
        except BaseException as failure:
            self.failure = failure

    def _step(self):
        content = self._random.randbytes(self._random.choice([0, 10, 5000, CHUNK + 1]))
        execute = self._connection.execute
        with self._connection.transaction():
            if self._random.random() < 0.5:
                payload = put(self._connection, content, self._random.choice(["none", "zstd"]))
            else:
                payload = scalar(self._connection, "SELECT herald.payload_open()")
                execute("SELECT herald.payload_write(%s, %s)", [payload, content])
                execute("SELECT herald.payload_close(%s)", [payload])
        self._contents[str(payload)] = hashlib.sha256(content).digest()
        chance = self._random.random()
        if chance < 0.7:
            send(self._connection, payload, self._random.choice(["kept", "gone"]))
            self.sent += 1
        elif chance < 0.8:
            execute("SELECT herald.start_segment()")
            execute("SELECT herald.trim('gone', 1::bigint << 52)")
        else:  # one that somebody has sent: forward it
            row = execute(
                "SELECT payload FROM herald.messages WHERE payload IS NOT NULL"
                " ORDER BY random() LIMIT 1"
            ).fetchone()
            try:
                if row:
                    send(self._connection, row[0], "kept")
            except psycopg.errors.NoDataFound:
                pass  # it went meanwhile

    def stop(self):
        self._ended.set()
        self.join(60)
        if self.failure:
            raise self.failure


def check_all(connection, contents):
    """Whatever message can be read, its payload can, and is what was put."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    rows = connection.execute(
        "SELECT payload, content::json ->> 'checksum' FROM herald.messages"
        " WHERE payload IS NOT NULL AND topic = 'kept'"
    ).fetchall()
    for payload, checksum in rows:
        digest = hashlib.sha256(read(connection, payload)).digest()
        assert checksum == "sha256:" + digest.hex()
        assert contents.get(str(payload), digest) == digest
    connection.execute("COMMIT")
    return len(rows)


def test_many_at_once_with_crashes(seed):
    """A short time-out, segments that come and go, forwarded payloads, a kill -9 each round."""
    with Cluster("payloads", {"herald.upload_timeout": "5s"}) as cluster:
        database = cluster.create_database()
        contents = {}
        for number in range(3):
            workers = [
                Worker(cluster, database, seed + 10 * number + i, contents) for i in range(4)
            ]
            with cluster.connect(database) as connection:
                wait_until(
                    lambda: sum(worker.sent for worker in workers) > 60
                    or any(worker.failure for worker in workers),
                    120,
                    "work",
                )
                check_all(connection, contents)
            cluster.kill9()
            for worker in workers:
                worker.stop()
            cluster.start()
            with cluster.connect(database) as connection:
                assert check_all(connection, contents) > 0
        with cluster.connect(database) as connection:
            query = (
                "SELECT count(*) FROM herald.payloads WHERE state = 'pending'"
                " OR state = 'complete' AND expires_at IS NOT NULL"
            )
            wait_until(lambda: scalar(connection, query) == 0, 60, "the end of what nobody sent")
            orphans = (
                "SELECT count(*) FROM herald.payload_chunk c WHERE NOT EXISTS (SELECT FROM"
                " herald.payload p WHERE p.id = c.payload AND p.state = 'complete')"
            )
            assert scalar(connection, orphans) == 0
            check_all(connection, contents)


def test_a_full_disk(cluster, database):
    """What does not fit is an error, what is there stays, and the upload goes on when there is room."""
    directory = work_directory("space")
    content = noise(12_000_000)
    size = 1_000_000
    with file_system(directory, "8m") as enlarge, cluster.connect(database) as connection:
        connection.execute(f"CREATE TABLESPACE little LOCATION '{directory}'")
        connection.execute("ALTER TABLE herald.payload_0 SET TABLESPACE little")
        upload = scalar(connection, "SELECT herald.payload_open(compression => 'none')")
        there = 0

        def write():
            nonlocal there
            part = content[there : there + size]
            there = scalar(connection, "SELECT herald.payload_write(%s, %s, %s)", upload, part, there)

        with pytest.raises(psycopg.errors.DiskFull):
            while there < len(content):
                write()
        assert there > 4_000_000
        assert read(connection, upload) == content[:there]
        enlarge("64m")
        while there < len(content):
            write()
        scalar(connection, "SELECT herald.payload_close(%s)", upload)
        assert read(connection, upload) == content
        connection.execute("ALTER TABLE herald.payload_0 SET TABLESPACE pg_default")
        connection.execute("DROP TABLESPACE little")
