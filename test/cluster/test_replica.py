"""A physical replica: everything that reads works there and obeys the same order, sending is refused,
and after promotion the bus goes on above the old positions."""

import psycopg
import pytest

from herald import Cluster
from standby import Standby
from workload import Books, Sender, join_all

TOPICS = ("room:1", "agent:7:inbox")
QUOTA = 1500


@pytest.fixture
def primary():
    with Cluster("primary") as cluster:
        yield cluster


@pytest.fixture
def standby(primary):
    with Standby(primary) as cluster:
        yield cluster


def portrait(connection):
    def rows(query):
        return connection.execute(query).fetchall()

    last = rows("SELECT id FROM herald.tail('*', 1)")[0][0]
    return [
        rows("SELECT * FROM herald.read('*', 0, 10000)"),
        rows("SELECT * FROM herald.tail('room:*', 5)"),
        rows("SELECT * FROM herald.conversation('c')"),
        rows(f"SELECT herald.envelope(m)::text FROM herald.message_by_id('{last}') m"),
        rows("SELECT * FROM herald.topics ORDER BY name"),
        rows("SELECT * FROM herald.feed(NULL, 0, 1000, 1000000, 8000)"),
        rows("SELECT * FROM herald.gap('*', 0)"),
        rows("SELECT herald.tail_start('*', 3), herald.horizon()"),
    ]


def test_reading_on_a_replica(primary, standby):
    database = primary.create_database()
    with primary.connect(database) as connection:
        for topic in TOPICS:
            connection.execute("SELECT herald.create_topic(%s)", [topic])
            for number in range(20):
                connection.execute(
                    "SELECT herald.send_message('a', NULL, %s, topic => %s, conversation => 'c')",
                    [f"{topic} {number}", topic],
                )
        connection.execute("SELECT herald.send_message('a', NULL, 'gone', topic => 'doomed')")
        connection.execute("SELECT herald.drop_topic('doomed')")
        standby.catch_up()
        standby.learn_horizon(database)
        with standby.connect(database) as replica:
            assert portrait(replica) == portrait(connection)
            for statement in (
                "SELECT herald.send_message('a', 'b', 'no')",
                "SELECT herald.publish('news', '1')",
                "SELECT herald.send_batch('[{\"sender\": \"a\", \"content\": \"no\"}]')",
                "SELECT herald.create_topic('news')",
                "SELECT herald.drop_topic('room:1')",
                "SELECT herald.maintain()",
            ):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    replica.execute(statement)
            assert portrait(replica) == portrait(connection)

    standby.promote()
    with standby.connect(database) as replica:
        before = replica.execute("SELECT herald.horizon()").fetchone()[0]
        replica.execute("SELECT herald.send_message('a', NULL, 'after', topic => 'room:1')")
        row = replica.execute("SELECT pos, content FROM herald.read('*', %s)", [before]).fetchone()
        assert row[0] > before and row[1] == "after"


def test_pages_read_on_a_replica_never_miss_a_late_arrival(primary, standby, seed):
    """The replica shows commits in the order in which the primary wrote them, and so in the order
    of their positions."""
    database = primary.create_database()
    standby.catch_up()
    received = []

    books = Books()
    senders = [Sender(f"s{n}", primary, database, books, QUOTA, seed) for n in range(1, 5)]
    for sender in senders:
        sender.daemon = True
        sender.start()

    def read_on(replica):
        after = received[-1][0] if received else 0
        rows = replica.execute("SELECT pos, id FROM herald.read('*', %s, 200)", [after]).fetchall()
        received.extend(rows)
        return rows

    with standby.connect(database) as replica:
        while any(sender.is_alive() for sender in senders):
            read_on(replica)
        join_all(senders)
        with primary.connect(database) as connection:
            # Senders may have left without waiting for the end of their COMMIT.
            connection.execute("SELECT herald.take_order()")
            connection.execute("SELECT herald.settle(herald.next_free_position() - 1)")
        standby.catch_up()
        standby.learn_horizon(database)
        while read_on(replica):
            pass
    with primary.connect(database) as connection:
        assert received == connection.execute(
            "SELECT pos, id FROM herald.messages ORDER BY pos"
        ).fetchall()
    assert len(received) >= 4 * QUOTA
