"""The dispatcher is there for every database with the extension, comes back whatever ends it, and
is in nobody's way: not in that of DROP EXTENSION, nor of what must be alone in a database."""

import json
import os
import re
import signal
import threading
from pathlib import Path

import psycopg
import pytest

from ear import Ear, dispatcher, dispatchers, engine
from herald import Cluster, wait_until

pytestmark = pytest.mark.tier("engine")


@pytest.fixture
def own_cluster():
    with Cluster("dispatcher", {"herald.max_databases": 3}) as cluster:
        yield cluster


def publish(connection, content, topic="news"):
    connection.execute("SELECT herald.publish(%s, %s)", [topic, json.dumps(content)])


def contents(payloads):
    return [json.loads(payload)["content"] for payload in payloads]


def check_heard(cluster, database, content):
    """A message goes all the way."""
    with Ear(cluster, database, "news") as ear, cluster.connect(database) as connection:
        publish(connection, content)
        assert contents(ear.wait_for(1)) == [content]


def test_create_extension_starts_it(cluster):
    name = cluster.create_database(extensions=())
    try:
        with cluster.connect() as other, cluster.connect(name) as connection:
            wait_until(lambda: name not in dispatchers(other), what="the launcher's look at it")
            connection.execute("CREATE EXTENSION pg_herald")
            wait_until(lambda: name in dispatchers(other), 5, "the dispatcher")
    finally:
        cluster.drop_database(name)


def test_create_extension_while_the_launcher_is_looking_for_it(own_cluster):
    """The launcher's worker has found no extension and ended, which the launcher is told only after
    the extension was created. (The postmaster, who would tell it, is stopped meanwhile.)"""
    with own_cluster.connect() as other:
        (launcher,) = other.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'herald launcher'"
        ).fetchone()
        os.kill(launcher, signal.SIGSTOP)
        name = own_cluster.create_database(extensions=())
        with own_cluster.connect(name) as connection:
            connection.execute("BEGIN; LOCK TABLE pg_extension")
            os.kill(launcher, signal.SIGCONT)
            wait_until(
                lambda: other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event = 'relation'"
                    " AND backend_type = 'herald dispatcher'", [name],
                ).fetchone()[0],
                what="the launcher's worker",
            )  # fmt: skip
            os.kill(own_cluster.pid, signal.SIGSTOP)
            try:
                connection.execute("ROLLBACK")
                wait_until(lambda: name not in dispatchers(other), what="the end of the worker")
                woken = switches(launcher)
                connection.execute("CREATE EXTENSION pg_herald")
                wait_until(lambda: switches(launcher) > woken, what="the launcher's turn")
            finally:
                os.kill(own_cluster.pid, signal.SIGCONT)
            dispatcher(connection)


def switches(pid):
    """How often a process has gone to sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M)[1])


def test_after_a_restart_it_runs_where_the_extension_is(own_cluster):
    names = [own_cluster.create_database() for _ in range(2)]
    own_cluster.create_database("without", extensions=())
    own_cluster.restart()
    with own_cluster.connect() as connection:
        wait_until(lambda: dispatchers(connection) == names, 20, "both dispatchers")
        # Databases are looked into one after the other; this one comes last.
        names.append(own_cluster.create_database("zuletzt"))
        wait_until(lambda: dispatchers(connection) == names, 20, "the third dispatcher")
    for name in names:
        check_heard(own_cluster, name, name)


@pytest.mark.parametrize("victim", ["herald dispatcher", "herald launcher"])
def test_a_listener_hears_all_once_whatever_is_terminated(cluster, database, victim):
    stop = threading.Event()
    sent = []

    def send():
        with cluster.connect(database) as connection:
            while not stop.is_set():
                sent.append(len(sent))
                publish(connection, sent[-1])

    def pids():
        return {
            pid
            for (pid,) in admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = %s"
                " AND (datname = %s OR datname IS NULL)",
                [victim, database],
            )
        }

    with Ear(cluster, database, "news") as ear, cluster.connect() as admin:
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            for _ in range(2):
                old = wait_until(pids, what=victim)
                before = len(sent)
                wait_until(lambda: len(sent) > before + 100, what="messages")
                for pid in old:
                    admin.execute("SELECT pg_terminate_backend(%s)", [pid])
                wait_until(lambda: pids() - old, what=f"another {victim}")
        finally:
            stop.set()
            sender.join()
        ear.wait_for(len(sent))
        with cluster.connect(database) as connection:
            publish(connection, "end")  # nothing comes twice before it
        assert contents(ear.wait_for(len(sent) + 1)) == [*sent, "end"]


def waits_for_lock(connection, pid):
    return connection.execute(
        "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [pid]
    ).fetchone()[0]


def test_a_wait_for_a_lock_loses_no_ring():
    """PostgreSQL waits for locks on the same latch that a sender sets. Here no timer rings."""
    settings = {
        "herald.maintain": "off", "wal_level": "minimal", "max_wal_senders": 0,
        "deadlock_timeout": "1h",
    }  # fmt: skip
    with Cluster("dispatcher", settings) as cluster:
        database = cluster.create_database()
        with (
            cluster.connect(database) as connection,
            cluster.connect(database) as locker,
            Ear(cluster, database, "news") as ear,
        ):
            pid = dispatcher(connection)
            publish(connection, 0)
            ear.wait_for(1)
            locker.execute("BEGIN; LOCK TABLE herald.topic_start IN ACCESS EXCLUSIVE MODE")
            publish(connection, 1)
            wait_until(lambda: waits_for_lock(connection, pid), what="the dispatcher's wait")
            publish(connection, 2)
            locker.execute("COMMIT")
            assert contents(ear.wait_for(3, timeout=5)) == [0, 1, 2]


def test_drop_and_create_the_extension_while_it_runs(cluster, database):
    with cluster.connect(database) as connection, cluster.connect() as other:
        dispatcher(connection)
        for round_number in range(2):
            publish(connection, "before")
            connection.execute("DROP EXTENSION pg_herald")
            wait_until(lambda: database not in dispatchers(other), 10, "the dispatcher's end")
            connection.execute("CREATE EXTENSION pg_herald")
            check_heard(cluster, database, round_number)
            assert connection.execute("SELECT count(*) FROM herald.messages").fetchone()[0] == 1


@pytest.mark.parametrize(
    "undone",
    [
        "BEGIN; DROP EXTENSION pg_herald; ROLLBACK",
        "BEGIN; SAVEPOINT s; DROP EXTENSION pg_herald; ROLLBACK TO s; COMMIT",
    ],
    ids=["all", "to a savepoint"],
)
def test_a_dropped_extension_that_comes_back_by_rollback(cluster, database, undone):
    with cluster.connect(database) as connection:
        pid = dispatcher(connection)
        before = engine(connection, "next_position")
        connection.execute(undone)
        check_heard(cluster, database, "still there")
        assert engine(connection, "dispatcher_pid") == pid
        assert engine(connection, "next_position") - before < 100, "the bus began anew"


def test_an_extension_created_and_undone_to_a_savepoint_takes_no_place(own_cluster):
    name = own_cluster.create_database(extensions=())
    with own_cluster.connect(name) as connection:
        for _ in range(4):  # three have room
            connection.execute("BEGIN; SAVEPOINT s; CREATE EXTENSION pg_herald")
            publish(connection, "never")
            connection.execute("ROLLBACK TO s; COMMIT")
        connection.execute("CREATE EXTENSION pg_herald")
    check_heard(own_cluster, name, "real")


def test_settings_of_the_database_are_not_for_the_dispatcher(cluster, database):
    with cluster.connect(database) as connection, Ear(cluster, database, "news") as ear:
        pid = dispatcher(connection)
        for setting in (
            "default_transaction_read_only = on",
            "default_transaction_isolation = 'serializable'",
            "statement_timeout = 1",
            "lock_timeout = 1",
        ):
            connection.execute(f"ALTER DATABASE {database} SET {setting}")
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(lambda: dispatcher(connection) != pid, 20, "the next dispatcher")
        publish(connection, "now")
        connection.execute(
            "SELECT herald.publish('news', '\"later\"',"
            " deliver_at => clock_timestamp() + interval '50 ms')"
        )
        assert contents(ear.wait_for(2)) == ["now", "later"]


def test_the_segment_of_the_counter_is_made(own_cluster):
    """A promotion or a far block can take the counter to where no segment has been made."""
    name = own_cluster.create_database()
    with own_cluster.connect(name) as connection:
        connection.execute(
            "ALTER EXTENSION pg_herald DROP TABLE herald.message_1; DROP TABLE herald.message_1;"
            " SELECT setval('herald.message_pos_seq', 1100000000); CHECKPOINT"
        )
    own_cluster.kill9()
    own_cluster.start()
    with own_cluster.connect(name) as connection:
        made = "SELECT to_regclass('herald.message_1') IS NOT NULL"
        wait_until(lambda: connection.execute(made).fetchone()[0], 20, "the segment")
        pos = connection.execute(
            "INSERT INTO herald.message (topic, content) VALUES ('news', 'x') RETURNING pos"
        ).fetchone()[0]
        assert pos >= 1_100_000_000


def test_alter_extension_update(cluster):
    name = cluster.create_database(extensions=())
    try:
        with cluster.connect(name) as connection:
            versions = connection.execute(
                "SELECT version FROM pg_available_extension_versions WHERE name = 'pg_herald'"
                " AND version <> (SELECT default_version FROM pg_available_extensions"
                " WHERE name = 'pg_herald') ORDER BY version DESC"
            ).fetchall()
            if not versions:
                pytest.skip("there is only one version")
            connection.execute(f"CREATE EXTENSION pg_herald VERSION '{versions[0][0]}'")
            connection.execute("ALTER EXTENSION pg_herald UPDATE")
            dispatcher(connection)
        check_heard(cluster, name, "updated")
    finally:
        cluster.drop_database(name)


def test_drop_database_frees_its_place(own_cluster):
    """Three databases have room; three times as many do, one after the other."""
    for _ in range(3):
        names = [own_cluster.create_database() for _ in range(3)]
        with own_cluster.connect() as admin:
            wait_until(lambda: dispatchers(admin) == sorted(names), 20, "three dispatchers")
            for name in names:
                admin.execute(f"DROP DATABASE {name}")
            assert dispatchers(admin) == []


def test_one_database_too_many_is_told(own_cluster):
    names = [own_cluster.create_database() for _ in range(3)]
    with own_cluster.connect() as admin:
        fourth = own_cluster.create_database(extensions=())
        with own_cluster.connect(fourth) as connection:
            with pytest.raises(psycopg.errors.ConfigurationLimitExceeded, match="3 databases") as no:
                connection.execute("CREATE EXTENSION pg_herald")
            assert "herald.max_databases" in no.value.diag.message_hint
            admin.execute(f"DROP DATABASE {names[0]}")
            connection.execute("CREATE EXTENSION pg_herald")
    for name in (fourth, *names[1:]):
        check_heard(own_cluster, name, name)


def test_a_database_is_cloned_while_its_dispatcher_runs(cluster, database):
    with cluster.connect(database) as connection:
        dispatcher(connection)
        for number in range(50):
            publish(connection, number)
        connection.execute(
            "SELECT count(*) FROM herald.publish_batch('many',"
            " (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n))"
        )
        before = engine(connection, "horizon")
    clone = cluster.create_database(template=database)
    try:
        with cluster.connect() as other:
            wait_until(
                lambda: {database, clone} <= set(dispatchers(other)), 10, "both dispatchers"
            )
        with Ear(cluster, database, "news") as here, Ear(cluster, clone, "news") as there:
            for name in (database, clone):
                with cluster.connect(name) as connection:
                    publish(connection, name)
                    last = connection.execute("SELECT pos FROM herald.tail('*', 1)").fetchone()[0]
                    assert last > before
            assert contents(here.wait_for(1)) == [database]
            assert contents(there.wait_for(1)) == [clone]
    finally:
        cluster.drop_database(clone)


def test_a_clone_that_fails_leaves_the_dispatcher(cluster, database):
    with cluster.connect() as admin:
        with cluster.connect(database) as connection:
            dispatcher(connection)
            with pytest.raises(psycopg.errors.DuplicateDatabase):
                admin.execute(f"CREATE DATABASE postgres TEMPLATE {database}")
            check_heard(cluster, database, "alive")


def test_a_stranger_cannot_end_the_dispatcher_by_cloning(cluster, database):
    with cluster.connect() as admin, cluster.connect(database) as connection:
        pid = dispatcher(connection)
        admin.execute("CREATE ROLE cloner CREATEDB")
        try:
            admin.execute("SET ROLE cloner")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute(f"CREATE DATABASE stolen TEMPLATE {database}")
        finally:
            admin.execute("RESET ROLE; DROP ROLE cloner")
        assert engine(connection, "dispatcher_pid") == pid


def test_a_database_is_renamed_while_its_dispatcher_runs(cluster, database):
    with cluster.connect(database) as connection:
        dispatcher(connection)
        publish(connection, "before")
    with cluster.connect() as admin:
        admin.execute(f"ALTER DATABASE {database} RENAME TO another")
        try:
            wait_until(lambda: "another" in dispatchers(admin), 10, "the dispatcher")
            check_heard(cluster, "another", "after")
        finally:
            admin.execute(f"ALTER DATABASE another RENAME TO {database}")


def test_databases_know_nothing_of_each_other(cluster, database):
    """Neither positions nor a late sender nor a channel's name reach from one into the other."""
    other = cluster.create_database()
    try:
        with (
            cluster.connect(database, autocommit=False) as late,
            cluster.connect(database) as one,
            cluster.connect(other) as two,
            Ear(cluster, database, "news") as ear_one,
            Ear(cluster, other, "news") as ear_two,
        ):
            publish(late, "late")
            for number in range(20):
                publish(two, number)
            assert contents(ear_two.wait_for(20)) == list(range(20))
            assert ear_one.payloads() == []
            assert engine(two, "senders") == 0 and engine(one, "senders") == 1
            late.commit()
            assert contents(ear_one.wait_for(1)) == ["late"]
    finally:
        cluster.drop_database(other)
