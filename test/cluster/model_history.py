"""What happened in one run of the model, as its driver saw it from outside.

Times are seconds of the driver's monotonic clock. A time "before" was taken before the request
left, a time "after" when the answer was here, so that what is concluded from them is certain.
"""

import json
from dataclasses import dataclass, field

from workload import ABORTED


@dataclass
class Sent:
    """One message as its sender knows it. The label is in its content and exists once."""

    label: str
    topic: str
    id: str | None = None  # as returned; with an idempotency key, perhaps that of another message
    key: str | None = None  # idempotency key
    seen_at: int | None = None  # its position when the sender looked at it before the commit


@dataclass(eq=False)
class Transaction:
    name: str
    began: float  # before
    messages: list = field(default_factory=list)  # Sent, in the order of sending
    discarded: list = field(default_factory=list)  # labels rolled back to a savepoint or failed
    commit_sent: float | None = None  # before; None: COMMIT was never sent
    ended: float | None = None  # after; None: there was no answer
    outcome: str = ABORTED

    def discard(self, start):
        """Forgets the messages from number `start` on: rolled back to a savepoint, or failed."""
        self.discarded += [sent.label for sent in self.messages[start:]]
        del self.messages[start:]


@dataclass
class Stored:
    """One message of the log, read when nobody sent any more."""

    pos: int
    id: str
    topic: str
    label: str
    envelope: str  # as LISTEN carries it


@dataclass
class Trail:
    """What a reader that pages was given."""

    name: str
    topics: frozenset
    got: list = field(default_factory=list)  # (pos, id)


@dataclass
class Hearing:
    """What one connection that LISTENs on topics was told."""

    name: str
    topics: frozenset
    horizon: int  # read after LISTEN was answered
    heard: list = field(default_factory=list)  # (pos, id, payload)
    cut: bool = False  # it ended before the run did


@dataclass
class History:
    base: int = 0  # the horizon before the run: all of the run lies above
    transactions: list = field(default_factory=list)
    log: list = field(default_factory=list)  # Stored, by position
    trails: list = field(default_factory=list)
    hearings: list = field(default_factory=list)
    # (time after, position, who): somebody was given this position, or told that it is decided
    sightings: list = field(default_factory=list)
    horizons: list = field(default_factory=list)  # the values of herald.horizon() in one session
    # Whether a number that only a transaction without commit has seen is never given out again.
    # (After a crash, a sequence may do so.)
    durable_numbers: bool = True


def describe(transaction, stored):
    """One line: times, outcome, and where its messages stand. `stored`: label -> Stored."""

    def when(time):
        return "never" if time is None else f"{time:.4f}"

    def where(sent):
        place = stored.get(sent.label)
        looked = f" (was {sent.seen_at})" if sent.seen_at is not None else ""
        return f"{sent.label}@{place.pos if place else '-'}{looked}"

    messages = [where(sent) for sent in transaction.messages]
    if len(messages) > 8:
        messages[5:-2] = [f"… {len(messages) - 7} more …"]
    dropped = f"; rolled back {len(transaction.discarded)}" if transaction.discarded else ""
    return (
        f"{transaction.name}: began {when(transaction.began)}, COMMIT sent"
        f" {when(transaction.commit_sent)}, answered {when(transaction.ended)},"
        f" {transaction.outcome}: {' '.join(messages) or 'nothing'}{dropped}"
    )


def parse_payload(payload):
    """(pos, id, payload) of an envelope."""
    envelope = json.loads(payload)
    return envelope["pos"], envelope["id"], payload
