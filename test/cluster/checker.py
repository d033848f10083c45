"""The model: what the books, the log and the readers must say of one another.

  - the log holds the messages of every committed transaction once and in the order of sending, and
    nothing that was rolled back; a transaction with an unknown outcome is there wholly or not at all
  - if one transaction's commit was answered before another began, its messages come first (G2)
  - each subscription got every message that it matches exactly once, in the order of positions (G3)
  - each frame is the envelope that SQL gives, byte for byte (G5)
"""

import json
from collections import Counter

from readers import SENTINEL, matching
from workload import ABORTED, COMMITTED, UNKNOWN


class Log:
    """All messages of the log, read at once when nobody sends any more."""

    def __init__(self, connection):
        self.rows = connection.execute(
            "SELECT pos, topic, CASE WHEN is_json THEN content::jsonb->>'label' ELSE content END,"
            " herald.envelope(m)::text FROM herald.messages m ORDER BY pos"
        ).fetchall()
        labels = [label for _, _, label, _ in self.rows if label != SENTINEL]
        repeated = [label for label, count in Counter(labels).items() if count > 1]
        assert not repeated, f"stored more than once: {repeated[:10]}"
        self.by_label = {label: (pos, topic) for pos, topic, label, _ in self.rows}

    def of(self, topics):
        return [row for row in self.rows if row[1] in topics]


def settle(books, log):
    """Decides the transactions whose COMMIT was not answered by what the log holds of them."""
    for transaction in books.with_outcome(UNKNOWN):
        stored = [label in log.by_label for label, _ in transaction.labels]
        assert all(stored) or not any(stored), f"half a transaction is stored: {transaction}"
        transaction.outcome = COMMITTED if any(stored) else ABORTED


def check_log(books, log):
    """The log against the books; call after `settle`."""
    expected = {SENTINEL}
    for transaction in books.with_outcome(COMMITTED):
        positions = []
        for label, topic in transaction.labels:
            assert label in log.by_label, f"lost: {label} of a committed transaction"
            pos, stored_topic = log.by_label[label]
            assert stored_topic == topic, f"{label} was sent to {topic}, is on {stored_topic}"
            positions.append(pos)
        assert positions == sorted(positions), f"not in the order of sending: {transaction}"
        expected.update(label for label, _ in transaction.labels)
    surplus = log.by_label.keys() - expected
    assert not surplus, f"stored, though nobody committed it: {sorted(surplus)[:10]}"


def check_real_time_order(books, log):
    """Whoever began after another's commit was answered has only higher positions."""
    spans = []
    for transaction in books.with_outcome(COMMITTED):
        if transaction.labels:
            positions = [log.by_label[label][0] for label, _ in transaction.labels]
            # The end of a transaction that was settled by the log is not known.
            spans.append((transaction.began, transaction.ended or float("inf"), positions))
    ends = sorted((ended, positions[-1]) for _, ended, positions in spans)
    over, highest = 0, 0
    for began, _, positions in sorted(spans):
        while ends[over][0] < began:
            highest = max(highest, ends[over][1])
            over += 1
        assert positions[0] > highest, (
            f"position {positions[0]} was given after a commit that had position {highest}"
        )


def check_pages(reader, log):
    expected = [(pos, label) for pos, _, label, _ in log.of(matching([reader.topics]))]
    assert_same(reader.name, reader.received, expected)


def check_frames(reader, log):
    """Subscriptions that are replayed on one connection run side by side: the order holds within
    each. Where they overlap, resuming before "ok" repeats what an earlier connection got; on one
    connection each message comes once all the same."""
    once = Counter((connection, pos) for connection, pos, _ in reader.received)
    repeated = [key for key, count in once.items() if count > 1]
    assert not repeated, f"{reader.name} got twice on one connection: {repeated[:10]}"
    by_pos = {pos: topic for pos, topic, _, _ in log.rows}
    for subscription, topics in reader.topics.items():
        name = f"{reader.name}, {subscription}"
        expected = [(pos, frame) for pos, _, _, frame in log.of(topics)]
        received = [r for r in reader.received if by_pos.get(r[1]) in topics]
        if reader.overlapping:
            frames = sorted({(pos, text) for _, pos, text in received})
        else:
            frames = [(pos, text) for _, pos, text in received]
        assert_same(name, frames, expected)
    strangers = [r for r in reader.received if by_pos.get(r[1]) not in matching(reader.topics)]
    assert not strangers, f"{reader.name} got what it did not ask for: {strangers[:3]}"


def assert_same(name, received, expected):
    if received == expected:
        return
    positions = [pos for pos, _ in received]
    wanted = [pos for pos, _ in expected]
    missing = sorted(set(wanted) - set(positions))
    surplus = sorted(set(positions) - set(wanted))
    repeated = [pos for pos, count in Counter(positions).items() if count > 1]
    late = [b for a, b in zip(positions, positions[1:]) if b <= a]
    different = [pair for pair in zip(received, expected) if pair[0] != pair[1]][:1]
    raise AssertionError(
        f"{name}: {len(received)} received, {len(expected)} expected; missing {missing[:10]},"
        f" surplus {surplus[:10]}, repeated {repeated[:10]}, after a higher one {late[:10]};"
        f" first difference: {json.dumps(different)[:1000]}"
    )
