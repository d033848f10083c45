"""Reading costs what is read, not what lies around it, whatever the planner's statistics say."""

import pytest

OTHERS = 50_000
READS = {
    "read": "herald.read('rare', 0, 2)",
    "read from the beginning": "herald.read('other:1', 0, 2)",
    "read from the middle": "herald.read('other:1', %(middle)s, 2)",
    "read a pattern": "herald.read('other:*', %(middle)s, 2)",
    "tail": "herald.tail('rare', 2)",
    "tail of a frequent topic": "herald.tail('other:1', 2)",
    "tail_start": "herald.tail_start('rare', 2)",
    "last_position": "herald.last_position('rare')",
    "feed": "herald.feed('rare', 0, 2, 100000, 100000)",
    "feed from the middle": "herald.feed('other:1', %(middle)s, 2, 100000, 100000)",
    "feed of all": "herald.feed(NULL, %(middle)s, 2, 100000, 100000)",
    "feed of a pattern": "herald.feed('other:*', %(middle)s, 2, 100000, 100000)",
}


def buffers(connection, source):
    """Pages that a call looks at, once it is planned. (Autovacuum may have it planned again.)"""
    counts = []
    for _ in range(4):
        (plan,) = connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {source}"
        ).fetchone()
        node = plan[0]["Plan"]
        counts.append(node["Shared Hit Blocks"] + node["Shared Read Blocks"])
    return min(counts)


@pytest.mark.tier("engine", "plain")
@pytest.mark.parametrize("topics", [1, 500])
def test_a_page_is_found_without_walking_over_the_others(cluster, database, topics):
    """The statistics know `topics` topics; of one that they don't know there are 4 messages."""
    with cluster.connect(database) as connection:
        fill = (
            "INSERT INTO herald.message (topic, content)"
            f" SELECT 'other:' || 1 + n % {topics}, repeat('x', 100)"
            f" FROM generate_series(1, {OTHERS}) AS n"
        )
        connection.execute(fill)
        connection.execute("ANALYZE herald.message")
        for _ in range(4):
            connection.execute("SELECT herald.send_message('a', NULL, 'x', topic => 'rare')")
        connection.execute(fill)
        (middle,) = connection.execute(
            "SELECT max(pos) - 100 FROM herald.messages WHERE pos < (SELECT min(pos)"
            " FROM herald.messages WHERE topic = 'rare')"
        ).fetchone()
        costs = {
            name: buffers(connection, source % {"middle": middle}) for name, source in READS.items()
        }
        assert max(costs.values()) < 50, costs
