"""Late transactions: what it costs one that was open longer than herald.max_hold, whose messages
were overtaken and get new positions at its commit, against the same one in time.

"Late" is waited for: another session sends, and the horizon passes its message. The waiting is not
counted. Whether a transaction was really late or in time is read from herald.engine.
"""

import time

from common import alternate, heading, median, number, table, verdict
from herald import wait_until
from load import CONTENT, FLUSH_NOTE, FLUSHES

AIM = 2
TOPIC = "bench:late"
_LOOP = (
    f"SELECT count(herald.send_message('late', NULL, '{CONTENT}', topic => '{TOPIC}'))"
    " FROM generate_series(1, {})"
)
_BATCH = (
    f"SELECT count(*) FROM herald.publish_batch('{TOPIC}',"
    f" (SELECT array_agg(to_jsonb('{CONTENT}'::text)) FROM generate_series(1, {{}})))"
)
CASES = (
    ("1,000 send_message", _LOOP.format(1000), True, AIM),
    ("publish_batch of 1,000", _BATCH.format(1000), False, AIM),
    ("64 send_message", _LOOP.format(64), True, None),
    ("1 send_message", _LOOP.format(1), True, None),
)


def measure(cluster, quick):
    rounds = 10 if quick else 60
    database = cluster.create_database()
    heading(
        "Late transactions: open longer than herald.max_hold, against the same ones in time",
        f"milliseconds, medians of {rounds} transactions each, alternating; total: sending, COMMIT",
        "new positions: messages of a transaction that got new ones",
        FLUSH_NOTE,
    )
    rows = []
    with cluster.connect(database) as other:
        for flush, options in FLUSHES:
            with cluster.connect(database, autocommit=False, options=options) as connection:
                for name, statement, rewritten, aim in CASES:
                    case = Case(connection, other, statement)
                    for _ in range(3):
                        case.run(late=False)
                    late, timely = alternate(
                        rounds, lambda: case.run(late=True), lambda: case.run(late=False)
                    )
                    late = [result for result in late if result["late"] or not rewritten]
                    timely = [result for result in timely if not result["late"]]
                    if min(len(late), len(timely)) < rounds / 2:
                        raise RuntimeError(f"{name}: {len(late)} late, {len(timely)} in time")
                    rows.append(row(name + flush, late, timely, aim))
    table(
        ["", "late total", "in time", "ratio", "aim", "late COMMIT", "in time", "ratio", "aim",
         "new positions"],
        rows,
    )  # fmt: skip
    cluster.drop_database(database)


def row(name, late, timely, aim):
    cells = [name]
    for figure in ("total", "commit"):
        theirs, ours = (median(results, lambda r: r[figure]) for results in (timely, late))
        cells += [
            number(ours * 1e3, 2), number(theirs * 1e3, 2), number(ours / theirs, 2),
            verdict(ours / theirs, at_most=aim) if aim else "",
        ]  # fmt: skip
    return [*cells, number(median(late, lambda r: r["moved"]))]


class Case:
    def __init__(self, connection, other, statement):
        self.connection, self.other, self.statement = connection, other, statement

    def counters(self):
        return self.other.execute(
            "SELECT restamped_transactions, restamped_messages FROM herald.engine"
        ).fetchone()

    def run(self, late):
        transactions, messages = self.counters()
        begun = time.perf_counter()
        self.connection.execute(self.statement, prepare=True)
        sent = time.perf_counter()
        if late:
            self.be_overtaken()
        committing = time.perf_counter()
        self.connection.commit()
        ended = time.perf_counter()
        transactions_after, messages_after = self.counters()
        return {
            "total": sent - begun + ended - committing,
            "commit": ended - committing,
            "late": transactions_after > transactions,
            "moved": messages_after - messages,
        }

    def be_overtaken(self):
        (position,) = self.other.execute(
            f"INSERT INTO herald.message (topic, content) VALUES ('{TOPIC}:other', 'x')"
            " RETURNING pos"
        ).fetchone()
        wait_until(
            lambda: self.other.execute("SELECT herald.horizon() >= %s", [position]).fetchone()[0],
            what="being overtaken",
        )
