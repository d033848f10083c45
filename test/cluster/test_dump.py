"""A database that is dumped and restored is the same bus: messages at the same positions, the same
envelopes, topics, gaps and keys; new messages come above the old ones; watched tables are watched."""

import random
import subprocess

import pytest

from herald import work_directory
from herald.system import run

LARGE = 1_000_000


def populate(connection):
    """A bus with everything in it that a bus can have."""
    execute = connection.execute
    execute("CREATE SCHEMA shop")
    execute("CREATE TABLE shop.item (number int PRIMARY KEY, name text, price numeric)")
    execute("INSERT INTO shop.item VALUES (1, 'before the watch', 9.99)")
    execute("SELECT herald.watch('shop.item', 'shop:items')")
    execute("INSERT INTO shop.item VALUES (2, 'watched', 1.5)")
    execute("SELECT herald.create_topic('described', 'a topic nobody has used')")
    execute("SELECT herald.create_topic('räume:ä', E'two\\nlines')")
    first = execute(
        "SELECT herald.send_message(sender => 'pm', recipient => '42', content => E'tab\\t \"q\" \\\\ €',"
        " message_type => 'request', metadata => '{\"deep\": [1, {\"a\": null}]}',"
        " conversation => 'c1', workspace => 'w', priority => 9, ordering_key => 'k',"
        " ttl => '90 days', idempotency_key => 'once')"
    ).fetchone()[0]
    execute("SELECT herald.reply(%s, 'yes')", [first])
    execute("SELECT herald.publish('räume:ä', '{\"n\": 12345678901234567890.5, \"s\": \"ü\\u0001\"}')")
    execute("SELECT herald.publish('räume:ä', 'null', idempotency_key => 'null')")
    execute("SELECT herald.send_message('pm', NULL, repeat('ä', %s))", [LARGE])
    execute("SELECT count(*) FROM herald.publish_batch('many', (SELECT array_agg(to_jsonb(n))"
            " FROM generate_series(1, 3000) n))")  # fmt: skip
    execute("BEGIN; SELECT herald.send_message('pm', NULL, 'never'); ROLLBACK")
    execute("SELECT herald.send_message('pm', NULL, 'gone', topic => 'doomed')")
    execute("SELECT herald.drop_topic('doomed')")
    execute("SELECT herald.send_message('pm', NULL, 'risen', topic => 'doomed')")
    execute("SELECT herald.maintain()")
    execute("SELECT herald.start_segment()")
    execute("SELECT herald.send_message('pm', NULL, 'in the second segment')")
    execute("INSERT INTO herald.message (topic, content) VALUES ('plain', 'inserted')")
    put = "SELECT herald.put_payload(%s, 'application/x-noise', %s)"
    for compression in ("none", "gzip", "zstd"):
        payload = execute(put, [random.Random(1).randbytes(LARGE), compression]).fetchone()[0]
        execute("SELECT herald.send_payload(%s, 'payloads')", [payload])
    execute("SELECT herald.send_payload(%s, 'payloads')", [payload])
    execute("SELECT herald.send_message('pm', NULL, repeat('large', %s))", [LARGE])
    execute(put, [b"not sent", "none"])
    execute("SELECT herald.payload_write(herald.payload_open(), 'pending: not dumped')")
    execute("SET herald.audit = on")
    execute("SELECT herald.payload_read(%s)", [payload])
    execute("RESET herald.audit")
    execute("CREATE TABLE shop.archive (LIKE herald.messages)")
    execute("SELECT herald.archive_to('arch*', 'shop.archive'::regclass)")
    execute("INSERT INTO herald.message (topic, content) VALUES ('archived', '1'), ('archived', '2')")
    execute("SELECT herald.trim('archived', pos) FROM herald.tail('archived', 1)")


def portrait(connection):
    """All that a user can see of the bus."""
    def rows(query):
        return connection.execute(query).fetchall()

    return {
        "messages": rows("SELECT * FROM herald.messages ORDER BY pos"),
        "envelopes": rows("SELECT herald.envelope(m)::text FROM herald.messages m ORDER BY pos"),
        "topics": rows("SELECT * FROM herald.topics ORDER BY name"),
        "pages": rows("SELECT pos, id FROM herald.read('*', 0, 10000)"),
        "conversation": rows("SELECT pos, content FROM herald.conversation('c1')"),
        "horizon": rows("SELECT herald.horizon()"),
        "gaps": rows(
            "SELECT topics, gap.* FROM unnest(ARRAY['doomed', '*', 'many', 'plain']) topics,"
            " herald.gap(topics, 0)"
        ),
        "payloads": rows(
            "SELECT p.id, p.content_type, p.compression, p.bytes, p.stored_bytes, p.chunks,"
            " p.checksum, p.owner, p.created_at, p.completed_at, p.segment, herald.payload_read(p.id)"
            " FROM herald.payloads p WHERE p.state = 'complete' ORDER BY p.id"
        ),
        "audit": rows("SELECT * FROM herald.payload_audit ORDER BY at"),
        "archives": rows("SELECT * FROM herald.archives"),
        "archived": rows("SELECT * FROM shop.archive"),
        "items": rows("SELECT * FROM shop.item ORDER BY number"),
    }


def check_alive(connection, listener):
    """The bus goes on where the dumped one stood."""
    before = connection.execute("SELECT herald.horizon()").fetchone()[0]
    listener.execute('LISTEN "shop:items"')
    connection.execute("INSERT INTO shop.item VALUES (3, 'after the restore', 2)")
    pos, envelope = connection.execute(
        "SELECT pos, herald.envelope(m)::text FROM herald.tail('shop:items', 1) m"
    ).fetchone()
    assert pos > before
    assert next(listener.notifies()).payload == envelope

    again = connection.execute(
        "SELECT herald.send_message('pm', '42', 'again', idempotency_key => 'once')"
        " = (SELECT id FROM herald.messages WHERE idempotency_key = 'once')"
    )
    assert again.fetchone()[0], "the idempotency key was forgotten"
    connection.execute("SELECT herald.trim('archived', pos + 1) FROM herald.tail('archived', 1)")
    archived = connection.execute("SELECT content FROM shop.archive ORDER BY pos").fetchall()
    assert archived == [("1",), ("2",)], "the archive does not go on where it was"
    assert connection.execute("SELECT herald.unwatch('shop.item')").fetchone()[0]
    connection.execute("SELECT herald.start_segment()")
    connection.execute("SELECT herald.send_message('pm', NULL, 'in a third segment')")
    for table in ("restore", "payload_restore"):
        count = connection.execute(f"SELECT count(*) FROM herald.{table}").fetchone()[0]
        assert count == 0
    # Nothing of a segment goes before the keeper has seen the messages.
    held = connection.execute("SELECT bool_and(held_by IS NOT NULL) FROM herald.payload_segments")
    assert held.fetchone()[0]


def plain(cluster, source, target):
    dump = run([cluster.program("pg_dump"), source], env=cluster.environment())
    cluster.psql(dump, target)


def inserts(cluster, source, target):
    dump = run(
        [cluster.program("pg_dump"), "--rows-per-insert=100", source], env=cluster.environment()
    )
    cluster.psql(dump, target)


def piped_custom(cluster, source, target):
    dump = subprocess.run(
        [cluster.program("pg_dump"), "-Fc", source],
        env=cluster.environment(), check=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    subprocess.run(
        [cluster.program("pg_restore"), "--exit-on-error", "--single-transaction", "-d", target],
        env=cluster.environment(), check=True, input=dump,
    )  # fmt: skip


def parallel_directory(cluster, source, target):
    folder = work_directory("dump") / "dump"
    environment = cluster.environment()
    run([cluster.program("pg_dump"), "-Fd", "-j2", "-f", folder, source], env=environment)
    run(
        [cluster.program("pg_restore"), "--exit-on-error", "-j2", "-d", target, folder],
        env=environment,
    )


@pytest.mark.parametrize("way", [plain, inserts, piped_custom, parallel_directory])
def test_a_restored_database_is_the_same_bus(cluster, database, way):
    with cluster.connect(database) as connection:
        populate(connection)
        before = portrait(connection)
        assert len(before["payloads"]) == 6 and len(before["audit"]) == 1
    restored = cluster.create_database(extensions=())
    again = cluster.create_database(extensions=())
    try:
        way(cluster, database, restored)
        way(cluster, restored, again)  # what was restored can be dumped like what was sent
        for name in (restored, again):
            with cluster.connect(name) as connection, cluster.connect(name) as listener:
                after = portrait(connection)
                horizon = before["horizon"]  # the counter may have been reserved further
                assert after.pop("horizon") >= horizon
                for part, value in after.items():
                    assert value == before[part], f"{part} differ after {way.__name__}"
                check_alive(connection, listener)
    finally:
        cluster.drop_database(restored)
        cluster.drop_database(again)


@pytest.mark.tier("engine", "plain")
def test_a_dump_of_a_log_without_messages_keeps_the_counter(cluster, database):
    with cluster.connect(database) as connection:
        for _ in range(5):
            connection.execute("SELECT herald.send_message('a', 'b', 'gone')")
        horizon = connection.execute("SELECT herald.horizon()").fetchone()[0]
        connection.execute("DELETE FROM herald.message")
    restored = cluster.create_database()  # its counter has begun by itself
    try:
        with cluster.connect(restored) as connection:
            connection.execute("SELECT herald.send_message('a', 'b', 'before the restore')")
        plain(cluster, database, restored)
        with cluster.connect(restored) as connection:
            assert send(connection) > horizon
    finally:
        cluster.drop_database(restored)


def send(connection):
    """The position of a new message."""
    return connection.execute(
        "INSERT INTO herald.message (topic, content) VALUES ('t', 'x') RETURNING pos"
    ).fetchone()[0]


def test_an_empty_bus_can_be_dumped(cluster, database):
    restored = cluster.create_database(extensions=())
    try:
        plain(cluster, database, restored)
        with cluster.connect(restored) as connection:
            assert connection.execute("SELECT count(*) FROM herald.messages").fetchone()[0] == 0
            connection.execute("SELECT herald.send_message('a', 'b', 'first')")
            assert connection.execute("SELECT count(*) FROM herald.read('*')").fetchone()[0] == 1
    finally:
        cluster.drop_database(restored)
