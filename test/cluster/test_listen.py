"""LISTEN hears every message however it got into the log, with its envelope; and no trouble on the
hearing side, notifier or client, ever reaches a sender."""

import json
import signal
import socket
from collections import Counter

import psycopg
import pytest

from herald import Notifier, wait_until

COPIED = 100_000
COPY_TOPICS = 4


def hear(connection, count):
    """The next `count` notifications."""
    heard = []
    for notification in connection.notifies():
        heard.append(notification)
        if len(heard) == count:
            return heard
    raise AssertionError("the connection ended")


@pytest.fixture
def sender(cluster, database):
    with cluster.connect(database) as connection:
        yield connection


@pytest.fixture
def listener(cluster, database):
    with cluster.connect(database) as connection:
        yield connection


def envelopes(connection, topics="*"):
    return [
        row[0]
        for row in connection.execute(
            "SELECT herald.envelope(m, 7999)::text FROM herald.messages m"
            " WHERE herald.matches(%s, topic) ORDER BY pos",
            [topics],
        )
    ]


def test_every_way_into_the_log_is_heard_with_the_envelope(sender, listener):
    listener.execute("LISTEN news")
    sender.execute("SELECT herald.send_message('a', NULL, 'sent', topic => 'news')")
    sender.execute("SELECT herald.publish('news', '{\"a\": [1, \"ü\"]}')")
    sender.execute("SELECT count(*) FROM herald.publish_batch('news', ARRAY['1', '2']::jsonb[])")
    sender.execute(
        "INSERT INTO herald.message (topic, content, priority, metadata)"
        " VALUES ('news', 'inserted', 3, '{}'), ('elsewhere', 'not heard', 0, NULL)"
    )
    with sender.cursor().copy("COPY herald.message (content, topic) FROM STDIN") as copy:
        copy.write_row(("copied", "news"))
    sender.execute("SELECT herald.send_message('a', NULL, repeat('x', 8000), topic => 'news')")
    heard = [notification.payload for notification in hear(listener, 7)]
    assert heard == envelopes(sender, "news")
    assert "ref" in json.loads(heard[-1]) and "content" not in json.loads(heard[-1])


def test_long_topics_are_heard_on_their_channel(sender, listener):
    topic = "long:" + "ä" * 150
    channel = sender.execute("SELECT herald.channel(%s)", [topic]).fetchone()[0]
    listener.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
    sender.execute("SELECT herald.send_message('a', NULL, 'hello', topic => %s)", [topic])
    assert hear(listener, 1)[0].payload == envelopes(sender, topic)[0]


def test_rolled_back_messages_are_not_heard(sender, listener):
    listener.execute("LISTEN news")
    sender.execute("BEGIN")
    sender.execute("INSERT INTO herald.message (topic, content) VALUES ('news', 'never')")
    sender.execute("ROLLBACK")
    sender.execute("BEGIN")
    sender.execute("SAVEPOINT here")
    sender.execute("SELECT herald.send_message('a', NULL, 'neither', topic => 'news')")
    sender.execute("ROLLBACK TO here")
    sender.execute("SELECT herald.send_message('a', NULL, 'heard', topic => 'news')")
    sender.execute("COMMIT")
    assert json.loads(hear(listener, 1)[0].payload)["content"] == "heard"


@pytest.mark.tier("engine", "plain")
def test_copy_announces_every_row_and_rings(cluster, sender, listener):
    """One ring a transaction; with the engine one for each part that is announced at a time."""
    for number in range(COPY_TOPICS):
        listener.execute(f'LISTEN "load:{number}"')
    listener.execute("LISTEN herald")
    before = sender.execute("SELECT herald.horizon()").fetchone()[0]
    with sender.cursor().copy("COPY herald.message (topic, content) FROM STDIN") as copy:
        for number in range(COPIED):
            copy.write(f"load:{number % COPY_TOPICS}\trow {number}\n")
    horizon = sender.execute("SELECT herald.horizon()").fetchone()[0]
    payloads, bells, last = [], [], before
    counts = Counter()
    for notification in listener.notifies():
        if notification.channel == "herald":
            bells.append(int(notification.payload))
            assert bells[-1] >= last, "rung for less than was announced"
        else:
            payloads.append(notification.payload)
            counts[notification.channel] += 1
            last = json.loads(notification.payload)["pos"]
        if len(payloads) == COPIED and bells and bells[-1] >= horizon:
            break
    assert set(counts.values()) == {COPIED // COPY_TOPICS} and len(counts) == COPY_TOPICS
    assert bells == sorted(set(bells)) and bells[-1] == horizon
    assert cluster.engine or len(bells) == 1
    assert payloads == envelopes(sender)


def test_a_failing_push_never_fails_a_send(cluster, database, sender):
    """The notifier is frozen, killed, or cut off, with a client that has stopped reading: sends
    succeed all the same, and the messages are there."""
    number = iter(range(1000))

    def send_some():
        for _ in range(10):
            sender.execute(
                "SELECT herald.send_message('a', NULL, %s, topic => 'news')",
                [f"{next(number)} " + "x" * 5000],
            )

    with Notifier(cluster.conninfo(database), "--max-buffer", "65536") as notifier:
        deaf = socket.create_connection((notifier.host, notifier.port))
        deaf.sendall(
            f"GET /ws/connect?user=deaf HTTP/1.1\r\nHost: 127.0.0.1:{notifier.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        subscribe = b'{"op":"sub","topic":"news","id":1}'
        deaf.sendall(bytes([0x81, 0x80 | len(subscribe)]) + b"\0\0\0\0" + subscribe)
        send_some()
        notifier.signal(signal.SIGSTOP)
        send_some()
        notifier.signal(signal.SIGCONT)
        sender.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        send_some()
        notifier.kill()
        send_some()
        notifier.start()
        send_some()
        wait_until(lambda: notifier.http("/readyz")[0] == 200)
        deaf.close()
    stored = sender.execute("SELECT content FROM herald.read('news', 0, 1000)").fetchall()
    assert [int(content.split()[0]) for (content,) in stored] == list(range(50))
