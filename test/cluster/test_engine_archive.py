"""Archives are written by the keeper before messages leave the log: each message once, through
crashes, and whatever is wrong with an archive is the trouble of its own messages alone."""

import os
import random
import subprocess
import threading
from contextlib import contextmanager

import psycopg
import pytest

from herald import Cluster, wait_until, work_directory
from test_engine_segments import contents, send, wake_keeper

pytestmark = pytest.mark.tier("engine")

WHOLE_LOG = 1 << 52


def archived(connection, directory, topics="*"):
    rows = connection.execute(
        "SELECT content FROM herald.read_archive(%s, %s)", [str(directory), topics]
    )
    return [content for (content,) in rows]


def archive(connection, topics, column):
    query = f"SELECT {column} FROM herald.archives WHERE topics = %s"
    return connection.execute(query, [topics]).fetchone()[0]


def write_at_once(connection):
    """In this database; a keeper that is there has read its settings already."""
    name = connection.info.dbname
    connection.execute(f'ALTER DATABASE "{name}" SET herald.archive_interval = 0')
    connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'herald keeper' AND datname = current_database()"
    )


def test_what_leaves_is_archived_by_itself(cluster, database):
    directory = work_directory("archive")
    with cluster.connect(database) as connection:
        write_at_once(connection)
        connection.execute("CREATE TABLE archived (LIKE herald.messages)")
        connection.execute("SELECT herald.archive_to('few', %s)", [str(directory)])
        connection.execute("SELECT herald.archive_to('f*', 'archived'::regclass)")
        connection.execute("SELECT herald.set_retention('few', max_messages => 2)")
        send(connection, "few", *"12345")
        wake_keeper(connection)
        wait_until(lambda: contents(connection, "few") == ["4", "5"], what="the end of three")
        assert archived(connection, directory)[:3] == ["1", "2", "3"]
        rows = connection.execute("SELECT content FROM archived ORDER BY pos").fetchall()
        assert rows[:3] == [("1",), ("2",), ("3",)]


def test_a_file_is_written_now_and_then(cluster, database):
    """Not with every message that leaves."""
    directory = work_directory("archive")
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.archive_to('few', %s)", [str(directory)])
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "1", "2")
        wake_keeper(connection)
        wait_until(lambda: contents(connection, "few") == ["2"], what="the end of the first")
        for text in "345":
            send(connection, "few", text)
            wake_keeper(connection)
            wait_until(lambda: archive(connection, "few", "behind") == int(text) - 3, what="a round")
        assert len(list(directory.iterdir())) == 1


def test_what_is_wrong_with_an_archive_concerns_its_messages_alone(cluster, database):
    directory = work_directory("archive")
    with cluster.connect(database) as connection:
        write_at_once(connection)
        directory.chmod(0o500)
        connection.execute("SELECT herald.archive_to('held', %s)", [str(directory)])
        for topic in ("held", "free"):
            connection.execute("SELECT herald.set_retention(%s, max_messages => 1)", [topic])
            send(connection, topic, *"123")
        wake_keeper(connection)
        wait_until(lambda: archive(connection, "held", "behind") == 2, what="two that wait")
        wait_until(lambda: archive(connection, "held", "last_error"), what="the trouble")
        assert "Permission denied" in archive(connection, "held", "last_error")
        send(connection, "free", "4")
        wake_keeper(connection)
        wait_until(lambda: contents(connection, "free") == ["4"], what="the end of the others")
        assert contents(connection, "held") == ["1", "2", "3"]
        told = [line for line in cluster.log().splitlines() if 'of "held" wait' in line]
        assert len(told) == 1 and "WARNING" in told[0] and str(directory) in told[0]
        directory.chmod(0o700)
        wait_until(lambda: contents(connection, "held") == ["3"], what="the end of the trouble")
        assert archived(connection, directory) == ["1", "2", "3"]
        assert archive(connection, "held", "last_error") is None
        assert [file.suffix for file in directory.iterdir()] == [".zst"]


def test_a_segment_goes_when_it_is_archived(cluster, database):
    directory = work_directory("archive")

    def held_by():
        query = "SELECT held_by FROM herald.segments WHERE number = 0"
        return connection.execute(query).fetchone()

    with cluster.connect(database) as connection:
        write_at_once(connection)
        directory.chmod(0o500)
        connection.execute("SELECT herald.archive_to('*', %s)", [str(directory)])
        connection.execute("SELECT herald.set_retention('*', max_messages => 1)")
        send(connection, "gone", "1", "2")
        connection.execute("SELECT herald.start_segment()")
        send(connection, "gone", "3")
        wake_keeper(connection)
        wait_until(lambda: held_by() == ("archive",), what="the wait for an archive")
        directory.chmod(0o700)
        wait_until(lambda: held_by() is None, what="the end of the segment")
        assert archived(connection, directory) == ["1", "2", "3"]


def test_much_is_archived_in_files_of_bounded_size(cluster, database):
    directory = work_directory("archive")
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.archive_to('load', %s)", [str(directory)])
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT CASE WHEN n % 2 = 0 THEN 'load' ELSE 'other' END, n || repeat('x', 2000)"
            " FROM generate_series(1, 100000) AS n"
        )
        expected = connection.execute(
            "SELECT count(*), sum(pos), md5(string_agg(herald.envelope(m)::text, '' ORDER BY pos))"
            " FROM herald.messages AS m WHERE topic = 'load'"
        ).fetchone()
        assert connection.execute("SELECT herald.trim('load', %s)", [WHOLE_LOG]).fetchone() == (
            50_000,
        )
        found = connection.execute(
            "SELECT count(*), sum(pos), md5(string_agg(herald.envelope(m)::text, '' ORDER BY pos))"
            " FROM herald.read_archive(%s) AS m", [str(directory)]
        ).fetchone()  # fmt: skip
        assert found == expected
        lines = archive(connection, "load", "bytes")
        assert len(list(directory.iterdir())) == archive(connection, "load", "files")
        assert archive(connection, "load", "files") == -(-lines // (32 * 1024 * 1024))
        assert lines > 50_000 * 2000


def test_a_crash_after_a_file_has_its_name():
    """Before the transaction that wrote it commits."""
    directory = work_directory("archive")
    with Cluster("archive", {"herald.maintain": "off"}) as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            connection.execute("SELECT herald.archive_to('*', %s)", [str(directory)])
            send(connection, "gone", "1", "2")
            connection.execute("SELECT herald.trim('gone', %s)", [WHOLE_LOG])
            send(connection, "gone", "3", "4")
        for texts in ("5", "6", "7"):
            connection = cluster.connect(database, autocommit=False)
            connection.execute("SELECT herald.trim('gone', %s)", [WHOLE_LOG])
            cluster.kill9()
            connection.close()
            cluster.start()
            with cluster.connect(database) as connection:
                there = archived(connection, directory)
                assert contents(connection, "gone") == there[2:], "the trim did not commit"
                assert archive(connection, "*", "files") == 1
                send(connection, "gone", *texts)
        (directory / ".pg_herald.tmp").write_text("of an attempt that wrote no further")
        with cluster.connect(database) as connection:
            connection.execute("SELECT herald.trim('gone', %s)", [WHOLE_LOG])
            assert contents(connection, "gone") == []
            assert archived(connection, directory) == list("1234567")
            assert len(list(directory.iterdir())) == 2, "what the crashes left is replaced"


def send_payload(connection, topic, content):
    return connection.execute(
        "SELECT p FROM herald.put_payload(%s, compression => 'none') AS p,"
        " herald.send_payload(p, topic => %s)", [content, topic]
    ).fetchone()[0]  # fmt: skip


def archived_payload(connection, directory, payload):
    return connection.execute(
        "SELECT herald.read_archived_payload(%s, %s)", [str(directory), payload]
    ).fetchone()[0]


def test_contents_of_payloads_outlive_them(cluster, database):
    directory = work_directory("archive")
    random_bytes = random.Random(1).randbytes
    with cluster.connect(database) as connection:
        write_at_once(connection)
        connection.execute("SELECT herald.archive_to('large', %s)", [str(directory)])
        connection.execute("SELECT herald.set_retention('large', max_messages => 1)")
        contents_of = {}
        for _ in range(3):
            content = random_bytes(20_000_000)
            contents_of[send_payload(connection, "large", content)] = content
        connection.execute("UPDATE herald.payload SET expires_at = now()")  # they are sent
        connection.execute("SELECT herald.start_segment()")
        send(connection, "large", "last")
        wake_keeper(connection)
        wait_until(lambda: contents(connection, "large") == ["last"], what="the end of the payloads")
        gone = "SELECT to_regclass('herald.payload_0') IS NULL"
        wait_until(lambda: connection.execute(gone).fetchone()[0], what="the end of their bytes")
        for payload, content in contents_of.items():
            assert archived_payload(connection, directory, payload) == content
        # Two of them fill one.
        assert archive(connection, "large", "files") >= 2


def test_a_crash_while_a_payload_is_archived():
    directory = work_directory("archive")
    content = random.Random(2).randbytes(1_000_000)
    with Cluster("archive", {"herald.maintain": "off"}) as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            connection.execute("SELECT herald.archive_to('*', %s)", [str(directory)])
            payload = send_payload(connection, "large", content)
        folder = directory / "payloads"
        connection = cluster.connect(database, autocommit=False)
        connection.execute("SELECT herald.trim('large', %s)", [WHOLE_LOG])
        cluster.kill9()
        connection.close()
        [file] = folder.iterdir()
        # As a crash before it has its name leaves it.
        (folder / ".pg_herald.tmp").write_bytes(file.read_bytes()[:5000])
        file.unlink()
        cluster.start()
        with cluster.connect(database) as connection:
            assert len(contents(connection, "large")) == 1, "the trim did not commit"
            connection.execute("SELECT herald.trim('large', %s)", [WHOLE_LOG])
            assert contents(connection, "large") == []
            assert archived_payload(connection, directory, payload) == content
            assert list(folder.iterdir()) == [file]
            assert file.stat().st_mode & 0o777 == 0o600


@contextmanager
def file_system(directory, size):
    """A file system of this size at the directory; gives what makes it larger."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")

    def mount(options, *arguments):
        subprocess.run(["mount", "-o", options, *arguments, directory], check=True)

    owner = directory.stat()
    mount(f"size={size},uid={owner.st_uid},mode=700", "-t", "tmpfs", "tmpfs")
    try:
        yield lambda more: mount(f"remount,size={more}")
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_full_disk(cluster, database):
    """What does not fit stays in the log, and takes no room until there is enough."""
    directory = work_directory("archive")
    content = random.Random(3).randbytes(1_000_000)
    with file_system(directory, "600k") as enlarge, cluster.connect(database) as connection:
        for topic in ("lines", "large"):
            (directory / topic).mkdir(mode=0o777)
            (directory / topic).chmod(0o777)
            connection.execute("SELECT herald.archive_to(%s, %s)", [topic, f"{directory}/{topic}"])
        connection.execute(
            "INSERT INTO herald.message (topic, content)"
            " SELECT 'lines', sha512(n::text::bytea)::text FROM generate_series(1, 20000) AS n"
        )
        payload = send_payload(connection, "large", content)
        for topic, count in (("lines", 20_000), ("large", 1)):
            with pytest.raises(psycopg.errors.DiskFull, match=f"{directory}/{topic}.*No space left"):
                connection.execute("SELECT herald.trim(%s, %s)", [topic, WHOLE_LOG])
            [[there]] = connection.execute("SELECT count(*) FROM herald.messages WHERE topic = %s", [topic])
            assert there == count
            assert [path for path in (directory / topic).rglob("*") if path.is_file()] == []
        connection.execute("SELECT herald.set_retention('large', max_age => '1 s')")
        wait_until(lambda: archive(connection, "large", "last_error"), what="the keeper's trouble")
        assert len(contents(connection, "large")) == 1
        enlarge("8m")
        for topic in ("lines", "large"):
            connection.execute("SELECT herald.trim(%s, %s)", [topic, WHOLE_LOG])
            assert contents(connection, topic) == []
        assert len(archived(connection, directory / "lines")) == 20_000
        assert archived_payload(connection, directory / "large", payload) == content
        connection.execute("SELECT herald.stop_archive(topics) FROM herald.archives")


class Sender(threading.Thread):
    """Sends until the server is gone. `sent`: what was committed; the next may have been, too."""

    def __init__(self, cluster, database, topic, sent):
        super().__init__(daemon=True)
        self._topic, self.sent = topic, sent
        self._connection = cluster.connect(database)
        self.start()

    def run(self):
        try:
            while True:
                text = str(len(self.sent))
                send(self._connection, self._topic, text)
                self.sent.append(text)
        except psycopg.OperationalError:
            pass


def test_crashes_while_messages_are_archived(seed):
    """After each nothing is lost and nothing is in an archive twice."""
    generator = random.Random(seed)
    directory = work_directory("archive")
    with Cluster("archive", {"herald.archive_interval": 0}) as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as connection:
            connection.execute("CREATE TABLE archived (LIKE herald.messages)")
            connection.execute("SELECT herald.archive_to('in files*', %s)", [str(directory)])
            connection.execute("SELECT herald.archive_to('in a table', 'archived'::regclass)")
            connection.execute("SELECT herald.set_retention('in *', max_messages => 5)")
        sent = {"in files": [], "in a table": []}
        in_archive = {
            "in files": "SELECT content FROM herald.read_archive(%s) ORDER BY pos",
            "in a table": "SELECT content FROM archived WHERE %s <> '' ORDER BY pos",
        }
        for _ in range(10):
            senders = [Sender(cluster, database, topic, sent[topic]) for topic in sent]
            with cluster.connect(database) as connection:
                begun = archive(connection, "in files*", "files")
                more = generator.randrange(1, 8)
                wait_until(
                    lambda: wake_keeper(connection)
                    or archive(connection, "in files*", "files") >= begun + more,
                    what="some files",
                )
            cluster.kill9()
            for sender in senders:
                sender.join()
            cluster.start()
            with cluster.connect(database) as connection:
                for topic, texts in sent.items():
                    kept = contents(connection, topic)  # first: the keeper goes on meanwhile
                    rows = connection.execute(in_archive[topic], [str(directory)]).fetchall()
                    have = [text for (text,) in rows]
                    first = int(kept[0])
                    if kept[-1] == str(len(texts)):  # stored, and the server gone before it said so
                        texts.append(kept[-1])
                    assert kept == texts[first:]
                    assert have == texts[: len(have)], "lost, twice or in another order"
                    assert len(have) >= first, "gone and not archived"
        assert sent["in files"]


def test_the_rights_of_an_archive_are_looked_at_each_time(cluster, database):
    directory = work_directory("archive")
    with cluster.connect(database) as connection:
        write_at_once(connection)
        connection.execute(
            "DROP ROLE IF EXISTS archivist; CREATE ROLE archivist IN ROLE pg_write_server_files;"
            " GRANT USAGE ON SCHEMA herald TO archivist;"
            " GRANT EXECUTE ON FUNCTION herald.archive_to(text, text) TO archivist"
        )
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        connection.execute("SET ROLE archivist")
        connection.execute("SELECT herald.archive_to('few', %s)", [str(directory)])
        connection.execute("RESET ROLE; REVOKE pg_write_server_files FROM archivist")
        send(connection, "few", "1", "2")
        wake_keeper(connection)
        wait_until(lambda: archive(connection, "few", "last_error"), what="the refusal")
        assert "may not write files" in archive(connection, "few", "last_error")
        assert contents(connection, "few") == ["1", "2"]
        connection.execute("GRANT pg_write_server_files TO archivist")
        wait_until(lambda: contents(connection, "few") == ["2"], what="the end of the trouble")
        connection.execute("DROP OWNED BY archivist; DROP ROLE archivist")
        send(connection, "few", "3", "4")
        wake_keeper(connection)
        wait_until(lambda: archive(connection, "few", "last_error"), what="the refusal")
        assert '"archivist"' in archive(connection, "few", "last_error")


def test_the_owner_of_a_table_gets_nothing_from_whom_archives_there(cluster, database):
    with cluster.connect(database) as connection:
        write_at_once(connection)
        connection.execute(
            "DROP ROLE IF EXISTS mallory; CREATE ROLE mallory; CREATE SCHEMA hers AUTHORIZATION mallory;"
            " CREATE TABLE hers.archived (LIKE herald.messages);"
            " ALTER TABLE hers.archived OWNER TO mallory;"
            " SET ROLE mallory; CREATE TABLE hers.seen (who name);"
            " CREATE FUNCTION hers.catch() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO hers.seen VALUES (current_user); RETURN NEW; END $$;"
            " CREATE TRIGGER catch BEFORE INSERT ON hers.archived"
            " FOR EACH ROW EXECUTE FUNCTION hers.catch(); RESET ROLE"
        )
        connection.execute("SELECT herald.archive_to('few', 'hers.archived'::regclass)")
        connection.execute("SELECT herald.set_retention('few', max_messages => 1)")
        send(connection, "few", "1", "2")
        wake_keeper(connection)
        wait_until(lambda: contents(connection, "few") == ["2"], what="the end of the first")
        seen = connection.execute("SELECT DISTINCT who FROM hers.seen").fetchall()
        assert seen == [("mallory",)]
        connection.execute(
            "CREATE OR REPLACE FUNCTION hers.catch() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RESET ROLE; RETURN NEW; END $$"
        )
        send(connection, "few", "3", "4")
        wake_keeper(connection)
        wait_until(lambda: archive(connection, "few", "last_error"), what="the refusal")
        assert 'cannot set parameter "role"' in archive(connection, "few", "last_error")
        assert contents(connection, "few")[-2:] == ["3", "4"]
        connection.execute("SELECT herald.stop_archive('few'); DROP OWNED BY mallory CASCADE")
        connection.execute("DROP ROLE mallory")
