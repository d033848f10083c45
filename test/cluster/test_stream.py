"""G1 to G3 and G5 under fire: eight senders with random rollbacks, savepoints, batches, INSERTs
and COPYs, readers by SQL and by WebSocket that resume, and all the while the notifier and
PostgreSQL are killed and started again."""

import random

import psycopg
import pytest

from checker import Log, check_frames, check_log, check_pages, check_real_time_order, settle
from herald import Cluster, Notifier, wait_until
from readers import SENTINEL, PagingReader, WebSocketReader, WebSocketReaders
from workload import TOPICS, UNKNOWN, Books, Sender, connect_again, join_all

pytestmark = pytest.mark.tier("engine", "plain")

SENDERS = 8
QUOTA = 2600  # of each sender: 20,800 messages in all
SUBSCRIPTIONS = {
    "one topic": ["room:1"],
    "another topic": ["agent:7:inbox"],
    "a pattern": ["room:*"],
    "a narrow pattern": ["room:?"],
    "everything": ["*"],
    "three apart": ["agent:?:inbox", "broadcast", "räume:*"],
    "overlapping": ["room:*", "*:1*", "room:1"],
}
PAGES = [
    ("*", "READ COMMITTED"),
    ("room:*", "REPEATABLE READ"),
    ("a topic", "SERIALIZABLE"),
]


@pytest.fixture
def own_cluster():
    with Cluster("stream") as cluster:
        yield cluster


def kill_notifier(_, __, notifier):
    notifier.restart(kill=True)


def stop_notifier(_, __, notifier):
    notifier.restart()


def kill_postgres(cluster, _, __):
    cluster.kill9()
    cluster.start()


def stop_postgres_at_once(cluster, _, __):
    cluster.restart("immediate")


def restart_postgres(cluster, _, __):
    cluster.restart("fast")


def kill_both(cluster, _, notifier):
    cluster.kill9()
    notifier.kill()
    notifier.start(wait=False)  # it comes first, and has to wait for its database
    cluster.start()


def cut_notifier_off(cluster, database, _):
    """Ends the notifier's connections, the feed's among them."""
    with cluster.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name LIKE 'herald-notifier%%'",
            [database],
        )


DISASTERS = [
    kill_notifier, kill_postgres, cut_notifier_off, stop_postgres_at_once, stop_notifier,
    kill_both, restart_postgres, kill_notifier, cut_notifier_off,
]  # fmt: skip


def end_with_sentinels(cluster, database):
    """The last message of each topic."""
    with connect_again(cluster, database) as connection, connection.transaction():
        for topic in TOPICS:
            connection.execute(
                "SELECT herald.send_message(NULL, NULL, %s, topic => %s)", [SENTINEL, topic]
            )


def test_stream_survives_kills_and_restarts(own_cluster, seed):
    cluster = own_cluster
    database = cluster.create_database()
    books = Books()
    senders = [
        Sender(f"s{n}", cluster, database, books, QUOTA, seed) for n in range(1, SENDERS + 1)
    ]
    pagers = [PagingReader(topics, level, cluster, database, seed) for topics, level in PAGES]
    disasters = list(DISASTERS)
    random.Random(seed).shuffle(disasters)

    with Notifier(cluster.conninfo(database)) as notifier:
        clients = [
            WebSocketReader(name, subscriptions, notifier.url(user="reader"), seed)
            for name, subscriptions in SUBSCRIPTIONS.items()
        ]
        listeners = WebSocketReaders(clients)
        everyone = [*senders, *pagers, listeners]
        for thread in everyone:
            thread.daemon = True
            thread.start()
        for number, disaster in enumerate(disasters, 1):
            mark = SENDERS * QUOTA * number // (len(disasters) + 1)
            wait_until(
                lambda: books.committed >= mark or any(t.failure for t in everyone),
                timeout=120,
                what=f"{mark} committed messages",
            )
            if any(t.failure for t in everyone):
                break
            disaster(cluster, database, notifier)
        join_all(senders)
        end_with_sentinels(cluster, database)
        join_all([*pagers, listeners])

    with connect_again(cluster, database) as connection:
        log = Log(connection)
    unknown = len(books.with_outcome(UNKNOWN))
    settle(books, log)
    check_log(books, log)
    check_real_time_order(books, log)
    assert unknown > 0
    for reader in pagers:
        check_pages(reader, log)
    for client in clients:
        check_frames(client, log)
    assert len(log.rows) >= SENDERS * QUOTA
    print(
        f"{len(log.rows)} messages, {len(books.transactions)} transactions ({unknown} settled by the"
        f" log), {len(disasters)} disasters, {sum(c.connections for c in clients)} connections"
    )


def test_idempotent_retry_after_a_lost_answer(own_cluster, seed):
    """A sender that does not know whether its COMMIT arrived sends again with the same key: the
    message is stored once, and the id it gets is the stored one."""
    cluster, database = own_cluster, own_cluster.create_database()
    order = random.Random(seed)
    given = {}
    for number in range(40):
        key = f"key {number}"
        connection = connect_again(cluster, database)
        try:
            connection.execute("BEGIN")
            send_once(connection, key)
            victim = connection.info.backend_pid
            if order.random() < 0.5:
                with cluster.connect() as other:
                    other.execute("SELECT pg_terminate_backend(%s)", [victim])
            connection.execute("COMMIT")
            if order.random() < 0.1:
                cluster.kill9()
                cluster.start()
        except psycopg.OperationalError:
            pass  # whether it is stored or not is what the second send must not need to know
        finally:
            connection.close()
        with connect_again(cluster, database) as again:
            given[key] = send_once(again, key)
    with cluster.connect(database) as connection:
        stored = connection.execute(
            "SELECT idempotency_key, id FROM herald.messages ORDER BY pos"
        ).fetchall()
    assert stored == list(given.items())


def send_once(connection, key):
    return connection.execute(
        "SELECT herald.send_message('a', 'b', %s, idempotency_key => %s)", [key, key]
    ).fetchone()[0]
