"""One transaction with very many messages: nobody else notices, and no row is written twice."""

import pytest

from ear import engine
from herald import wait_until
from probe import Probe, tell

pytestmark = pytest.mark.tier("engine")

MESSAGES = 1_000_000
MAX_HOLD = 0.020  # the default
MARGIN = 0.150  # for the scheduler of a small, busy machine
BATCH = 10_000
FEW = 50


def by_publish_batch(connection):
    for first in range(0, MESSAGES, BATCH):
        connection.execute(
            "SELECT count(*) FROM herald.publish_batch('bulk', (SELECT array_agg(to_jsonb(n))"
            " FROM generate_series(%s::int, %s) n))",
            [first, first + BATCH - 1],
        )


def by_copy(connection):
    with connection.cursor().copy("COPY herald.message (topic, content, is_json) FROM STDIN") as copy:
        for first in range(0, MESSAGES, BATCH):
            copy.write("".join(f"bulk\t{n}\tt\n" for n in range(first, first + BATCH)))


def positions(connection):
    return connection.execute(
        "SELECT min(pos), max(pos), sum(pos) FROM herald.message WHERE topic = 'bulk'"
    ).fetchone()


def updates(connection):
    """Rows of the log that were written again."""
    return connection.execute(
        "SELECT coalesce(sum(n_tup_upd), 0) FROM pg_stat_all_tables"
        " WHERE schemaname = 'herald' AND relname ~ '^message_[0-9]+$'"
    ).fetchone()[0]


@pytest.mark.parametrize("way", [by_publish_batch, by_copy])
def test_a_bulk_load_is_not_noticed_and_not_rewritten(cluster, database, way):
    with (
        cluster.connect(database, autocommit=False) as loader,
        cluster.connect(database) as other,
        Probe(cluster, database, "probe") as listening,
        Probe(cluster, database, "probe by read", by_read=True) as reading,
    ):
        listening.more(20)
        for probe in (listening, reading):
            probe.forget()
        way(loader)
        before = engine(other, "next_position")
        own_view = positions(loader)
        loader.commit()
        for probe in (listening, reading):
            probe.more(20)
    tell("LISTEN", listening.delays)
    tell("read", reading.delays)
    # Each probe sends one at a time: a single long delay may be all that is seen of a standstill.
    assert max(listening.delays) <= MAX_HOLD + MARGIN
    assert max(reading.delays) <= MAX_HOLD + MARGIN

    with cluster.connect(database) as connection:
        count, first, ordered = connection.execute(
            "SELECT count(*), min(pos), bool_and(content::int = place - 1)"
            " FROM (SELECT pos, content, row_number() OVER (ORDER BY pos) AS place"
            "       FROM herald.messages WHERE topic = 'bulk') AS bulk"
        ).fetchone()
        assert (count, ordered) == (MESSAGES, True)
        assert first >= before
        assert positions(connection) == own_view, "the load was renumbered"
        # A message of the probes may be late itself on a busy machine.
        # PostgreSQL's statistics come later.
        restamped = engine(connection, "restamped_messages")
        wait_until(lambda: updates(connection) == restamped, what="as many updates")
        assert restamped < FEW
