"""Batches: one publish_batch of 1,000 messages against COPY of the same rows into an equal table,
each from a client that has its bytes ready.

"defaults" lets the table make what publish_batch makes as well (pos, id, at); "complete" has it
all made by the client beforehand, which lets COPY store a page at a time.
"""

import itertools
import time
import uuid

from common import alternate, heading, median, number, table, verdict
from load import CONTENT, FLUSH_NOTE, FLUSHES, database_with_rivals

TOPIC = "bench:batch"
SIZE = 1000
AIM = 0.7
_JSON = f'"{CONTENT}"'


def measure(cluster, quick):
    rounds, batches = (2, 20) if quick else (5, 60)
    database = database_with_rivals(cluster)
    heading(
        f"Batches: publish_batch of {number(SIZE)} messages against COPY of the same rows",
        f"one client, fsync on, {rounds} rounds of {batches} batches each,"
        " alternating; medians of the rounds' medians",
        FLUSH_NOTE,
    )
    rows = []
    positions = itertools.count(10**12)  # far above those that the table's sequence gives
    for flush, options in FLUSHES:
        with cluster.connect(database, options=options) as connection:
            sides = Sides(connection, positions)
            for side in (sides.herald, sides.defaults, sides.complete):
                many(side, 5)
            ours, defaults, complete = alternate(
                rounds,
                *(
                    lambda side=side: many(side, batches)
                    for side in (sides.herald, sides.defaults, sides.complete)
                ),
            )
        for name, theirs, aim in (("defaults", defaults, AIM), ("complete", complete, None)):
            ratio = median(theirs) / median(ours)
            rows.append(
                [
                    f"COPY, {name}{flush}", number(SIZE / median(ours)),
                    number(SIZE / median(theirs)), number(ratio, 2),
                    verdict(ratio, at_least=aim) if aim else "",
                ]
            )  # fmt: skip
    table(["", "herald rows/s", "COPY rows/s", "ratio", "aim"], rows)
    cluster.drop_database(database)


def many(side, batches):
    """Median seconds of one batch."""
    return median([side() for _ in range(batches)])


class Sides:
    """Each sends one batch and gives the seconds that it took."""

    def __init__(self, connection, positions):
        self.connection, self.positions = connection, positions
        self.array = "{" + ",".join([f'"\\"{CONTENT}\\""'] * SIZE) + "}"
        self.rows = f"{TOPIC}\t{_JSON}\tt\n" * SIZE

    def herald(self):
        begun = time.perf_counter()
        self.connection.execute(
            "SELECT count(*) FROM herald.publish_batch(%s, %s::text::jsonb[])",
            [TOPIC, self.array],
            prepare=True,
        )
        return time.perf_counter() - begun

    def defaults(self):
        return self.copy("topic, content, is_json", self.rows)

    def complete(self):
        lines = []
        for position in itertools.islice(self.positions, SIZE):
            identifier = uuid.UUID(int=position << 64)
            lines.append(
                f"{position}\t{identifier}\t{TOPIC}\t2030-01-01 00:00:00+00\tnotification\t"
                f"{_JSON}\t0\tt\n"
            )
        return self.copy(
            "pos, id, topic, at, message_type, content, priority, is_json", "".join(lines)
        )

    def copy(self, columns, text):
        data = text.encode()
        begun = time.perf_counter()
        with self.connection.cursor() as cursor:
            with cursor.copy(f"COPY plain_message ({columns}) FROM STDIN") as copy:
                copy.write(data)
        return time.perf_counter() - begun
