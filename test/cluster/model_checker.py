"""The rules that a history must obey (G1 to G3; who waits for whom is seen by the driver).

  stored       the log has each committed message once, with the id that its sender was given, and
               nothing that was rolled back; a transaction is there wholly or not at all
  order        inside a transaction as sent; a transaction that began after another's commit was
               answered has only higher positions
  decided      once anybody was given a position, or told that it is decided, a transaction whose
               COMMIT had not yet been sent has only higher ones; the horizon never goes back
  numbers      no number is given out twice; a message's position never moves down
  read         each reader got each message of its topics once, in the order of positions
  heard        so did each connection that LISTENs, of what lies above the horizon that was read
               after LISTEN was answered; of what lies below it may get any; the payload is the
               envelope

`check` returns what is broken, a line each, with the transactions that are concerned.
"""

from collections import Counter

from model_history import describe
from workload import ABORTED, COMMITTED, UNKNOWN

HIGHEST = 2**53
SHOWN = 4  # cases of each broken rule that are told


def check(history):
    settle(history)
    model = Model(history)
    broken = []
    for rule in (stored, keys, numbers, order, decided, read, heard):
        cases = list(rule(model))
        broken += cases[:SHOWN]
        if len(cases) > SHOWN:
            broken.append(f"… and {len(cases) - SHOWN} more against rule {rule.__name__!r}")
    return broken


def settle(history):
    """Decides the transactions whose COMMIT was not answered by what the log has of them."""
    labels = {row.label for row in history.log}
    for transaction in history.transactions:
        if transaction.outcome == UNKNOWN:
            there = any(sent.label in labels for sent in transaction.messages)
            transaction.outcome = COMMITTED if there else ABORTED


class Model:
    """A settled history with what the rules look up."""

    def __init__(self, history):
        self.history = history
        self.stored = {row.label: row for row in history.log}
        self.committed = [t for t in history.transactions if t.outcome == COMMITTED]
        self.owner = {
            sent.label: transaction
            for transaction in history.transactions
            for sent in transaction.messages
        }
        self.owner |= {
            label: transaction
            for transaction in history.transactions
            for label in transaction.discarded
        }

    def positions(self, transaction):
        """Of its messages that are in the log, in the order of sending."""
        return [
            self.stored[sent.label].pos
            for sent in transaction.messages
            if sent.label in self.stored
        ]

    def tell(self, text, *transactions):
        lines = [describe(t, self.stored) for t in dict.fromkeys(transactions) if t]
        return "\n    ".join([text, *lines])

    def tell_of(self, text, rows):
        """With the owners of the first of these messages."""
        owners = [self.owner[row.label] for row in rows[:3] if row.label in self.owner]
        return self.tell(text, *owners)

    def covered(self, topics):
        return [row for row in self.history.log if row.topic in topics]


def stored(model):
    wanted = set()
    for transaction in model.committed:
        for sent in transaction.messages:
            row = model.stored.get(sent.label)
            if row is None:
                if sent.key is None:
                    yield model.tell(f"{sent.label} is lost", transaction)
                continue
            wanted.add(sent.label)
            if row.topic != sent.topic:
                yield model.tell(f"{row.label} is on {row.topic}, not on {sent.topic}", transaction)
            if sent.id is not None and row.id != sent.id:
                yield model.tell(f"{sent.label} has id {row.id}, not {sent.id}", transaction)
        positions = model.positions(transaction)
        if positions != sorted(positions):
            yield model.tell("not in the order of sending", transaction)
    for label in model.stored.keys() - wanted:
        owner = model.owner.get(label)
        yield model.tell(f"{label} is stored, though nobody committed it", owner)
    for label, count in Counter(row.label for row in model.history.log).items():
        if count > 1:
            yield model.tell(f"{label} is stored {count} times", model.owner.get(label))


def keys(model):
    """Of the committed sends with the same key one is stored, and all were given its id."""
    sends = {}
    for transaction in model.committed:
        for sent in transaction.messages:
            if sent.key is not None:
                sends.setdefault((sent.key, sent.topic), []).append((sent, transaction))
    for (key, _), uses in sends.items():
        rows = [model.stored[sent.label] for sent, _ in uses if sent.label in model.stored]
        owners = [transaction for _, transaction in uses]
        if len(rows) != 1:
            yield model.tell(f"key {key!r} is stored {len(rows)} times", *owners)
        elif wrong := [sent.id for sent, _ in uses if sent.id not in (None, rows[0].id)]:
            yield model.tell(f"key {key!r}: {rows[0].id} is stored, {wrong} was returned", *owners)


def numbers(model):
    history = model.history
    by_pos = {}
    for row in history.log:
        if not history.base < row.pos < HIGHEST:
            yield model.tell_of(f"{row.label} has position {row.pos}, base {history.base}", [row])
        if row.pos in by_pos:
            yield model.tell_of(f"position {row.pos} is given twice", [row, by_pos[row.pos]])
        by_pos[row.pos] = row
    for id, count in Counter(row.id for row in history.log).items():
        if count > 1:
            yield f"id {id} is given {count} times"
    looked = {}
    for transaction in history.transactions:
        for sent in transaction.messages:
            if sent.seen_at is None:
                continue
            if transaction.outcome != COMMITTED and not history.durable_numbers:
                continue
            row = model.stored.get(sent.label)
            if row and row.pos < sent.seen_at:
                yield model.tell(f"{sent.label} went back to {row.pos}", transaction)
            other = by_pos.get(sent.seen_at)
            if other and other.label != sent.label:
                text = f"position {sent.seen_at} was seen on {sent.label}, is now of {other.label}"
                yield model.tell(text, transaction, model.owner.get(other.label))
            if looked.setdefault(sent.seen_at, sent.label) != sent.label:
                text = f"position {sent.seen_at} was seen on {looked[sent.seen_at]} too"
                yield model.tell(text, transaction, model.owner[looked[sent.seen_at]])


def order(model):
    """Sweeps over the beginnings with the highest position of all commits answered until then."""
    spans = [(t, positions) for t in model.committed if (positions := model.positions(t))]
    ends = sorted(
        ((t.ended, max(positions), t) for t, positions in spans if t.ended is not None),
        key=lambda end: end[0],
    )
    over, highest, before = 0, 0, None
    for transaction, positions in sorted(spans, key=lambda span: span[0].began):
        while over < len(ends) and ends[over][0] < transaction.began:
            if ends[over][1] > highest:
                _, highest, before = ends[over]
            over += 1
        if min(positions) <= highest:
            text = f"position {min(positions)} was given after a commit that had {highest}"
            yield model.tell(text, before, transaction)


def decided(model):
    """The same sweep over the COMMITs with what was seen until then."""
    history = model.history
    for earlier, later in zip(history.horizons, history.horizons[1:]):
        if later < earlier:
            yield f"the horizon went back from {earlier} to {later}"
    seen = sorted(history.sightings, key=lambda sighting: sighting[0])
    over, highest, at, who = 0, 0, 0.0, None
    committed = [t for t in model.committed if t.commit_sent is not None]
    for transaction in sorted(committed, key=lambda t: t.commit_sent):
        while over < len(seen) and seen[over][0] < transaction.commit_sent:
            if seen[over][1] > highest:
                at, highest, who = seen[over]
            over += 1
        positions = model.positions(transaction)
        if positions and min(positions) <= highest:
            text = f"position {min(positions)} came late: {who} had {highest} at {at:.4f}"
            yield model.tell(text, transaction)


def read(model):
    for trail in model.history.trails:
        expected = model.covered(trail.topics)
        got = [pair[0] for pair in trail.got]
        yield from compare(model, trail.name, trail.got, [(r.pos, r.id) for r in expected])
        if got != sorted(set(got)):
            yield f"{trail.name}: positions not increasing: {drops(got)[:5]}"


def heard(model):
    for hearing in model.history.hearings:
        expected = model.covered(hearing.topics)
        got = [pos for pos, _, _ in hearing.heard]
        if got != sorted(set(got)):
            yield f"{hearing.name}: positions not increasing: {drops(got)[:5]}"
        # What was announced shortly before the connection's end may not have arrived.
        last = max(got, default=0) if hearing.cut else HIGHEST
        known = set(got)
        expected = [r for r in expected if r.pos in known or hearing.horizon < r.pos <= last]
        wanted = [(row.pos, row.id, row.envelope) for row in expected]
        yield from compare(model, hearing.name, hearing.heard, wanted)


def compare(model, name, got, wanted):
    """Nothing, or one line on what is missing, too much, repeated and different."""
    if got == wanted:
        return
    by_pos = {row.pos: row for row in model.history.log}
    have, want = {g[0] for g in got}, {w[0] for w in wanted}
    missing, surplus = sorted(want - have), sorted(have - want)
    repeated = [pos for pos, count in Counter(g[0] for g in got).items() if count > 1]
    pairs = (pair for pair in zip(got, wanted) if pair[0] != pair[1])
    different = [str(item)[:160] for item in next(pairs, ())]
    rows = [by_pos[pos] for pos in missing + surplus if pos in by_pos]
    text = (
        f"{name}: {len(got)} received, {len(wanted)} expected; missing {missing[:8]}, too much"
        f" {surplus[:8]}, repeated {repeated[:8]}; first difference {different}"
    )
    yield model.tell_of(text, rows)


def drops(positions):
    return [(a, b) for a, b in zip(positions, positions[1:]) if b <= a]
