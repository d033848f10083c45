"""Senders that do everything a sender may do, at random, and keep books on what must come of it.

Every message carries a label that exists once. `Books` holds, for each transaction, the labels it
would leave in the log and how it ended; transactions whose COMMIT was not answered are settled by
reading the log afterwards. All of it is safe to use from several threads.
"""

import json
import random
import threading
import time
from dataclasses import dataclass, field

import psycopg

from herald import wait_until

TOPICS = [
    "room:1", "room:2", "room:3", "room:10", "agent:7:inbox", "agent:8:inbox",
    "agent:9:log", "workspace:red", "workspace:blue", "broadcast", "räume:ä", "a topic",
]  # fmt: skip

COMMITTED, ABORTED, UNKNOWN = "committed", "aborted", "unknown"


@dataclass
class Transaction:
    began: float  # just before BEGIN was sent
    labels: list = field(default_factory=list)  # (label, topic) in the order of sending
    discarded: list = field(default_factory=list)  # labels rolled back to a savepoint
    outcome: str = ABORTED
    ended: float = 0.0  # just after COMMIT was answered


class Books:
    def __init__(self):
        self._lock = threading.Lock()
        self.transactions = []
        self.committed = 0

    def enter(self, transaction):
        with self._lock:
            self.transactions.append(transaction)
            if transaction.outcome == COMMITTED:
                self.committed += len(transaction.labels)

    def with_outcome(self, outcome):
        return [t for t in self.transactions if t.outcome == outcome]


class Sender(threading.Thread):
    """Sends random transactions until `quota` of its messages are committed. Loses its connection
    whenever the server goes, and carries on when it is back."""

    def __init__(self, name, cluster, database, books, quota, seed):
        super().__init__(name=f"sender {name}")
        self.label_prefix = name
        self.cluster, self.database, self.books, self.quota = cluster, database, books, quota
        self.random = random.Random(f"{seed} {name}")
        self.sent = 0
        self.committed = 0
        self.failure = None
        self.connection = None
        self.transaction = None

    def run(self):
        try:
            while self.committed < self.quota:
                if self.connection is None or self.connection.closed:
                    self.connection = connect_again(self.cluster, self.database)
                self._one_transaction()
        except BaseException as failure:  # reported by join_all in the test's own thread
            self.failure = failure
        finally:
            if self.connection:
                self.connection.close()

    def _one_transaction(self):
        self.transaction = transaction = Transaction(began=time.monotonic())
        committing = False
        try:
            self._execute("BEGIN")
            for _ in range(self.random.choice((1, 1, 1, 2, 4))):
                self._step()
            ending = self.random.random()
            if ending < 0.2:
                self._execute("ROLLBACK")
            elif ending < 0.22:
                transaction.outcome = UNKNOWN
                self._commit_without_waiting()
            else:
                committing = True
                self._execute("COMMIT")
                transaction.ended = time.monotonic()
                transaction.outcome = COMMITTED
                self.committed += len(transaction.labels)
        except psycopg.OperationalError as lost:
            if (lost.sqlstate or "57P")[:3] not in ("57P", "08P"):  # a deadlock, say
                raise
            # The server went away; in the middle of COMMIT nobody knows what became of it.
            if committing:
                transaction.outcome = UNKNOWN
            self.connection.close()
        self.books.enter(transaction)

    def _commit_without_waiting(self):
        """COMMIT leaves, the connection is gone before the answer comes."""
        self.connection.pgconn.send_query(b"COMMIT")
        self.connection.close()

    def _step(self):
        if self.random.random() < 0.2:
            before = len(self.transaction.labels)
            self._execute("SAVEPOINT here")
            self._send_somehow()
            if self.random.random() < 0.6:
                self._execute("ROLLBACK TO SAVEPOINT here")
                self.transaction.discarded += [l for l, _ in self.transaction.labels[before:]]
                del self.transaction.labels[before:]
            else:
                self._execute("RELEASE SAVEPOINT here")
        else:
            self._send_somehow()

    def _send_somehow(self):
        ways = (self._message, self._publish, self._batch, self._payloads, self._insert, self._copy)
        self.random.choices(ways, weights=(6, 4, 1, 1, 2, 1))[0]()

    def _label(self, topic=None):
        topic = topic or self.random.choice(TOPICS)
        self.sent += 1
        label = f"{self.label_prefix}-{self.sent}"
        self.transaction.labels.append((label, topic))
        return label, topic

    def _labels(self, most, topic=None):
        return [self._label(topic) for _ in range(self.random.randint(1, most))]

    def _message(self):
        label, topic = self._label()
        key = label if self.random.random() < 0.2 else None
        self._execute(
            "SELECT herald.send_message(%s, NULL, %s, topic => %s, idempotency_key => %s)",
            self.label_prefix, label, topic, key,
        )  # fmt: skip

    def _publish(self):
        label, topic = self._label()
        payload = json.dumps({"label": label, "text": "x" * self.random.choice((0, 10, 1000, 9000))})
        self._execute("SELECT herald.publish(%s, %s::jsonb)", topic, payload)

    def _batch(self):
        messages = [
            {"sender": self.label_prefix, "topic": topic, "content": label}
            for label, topic in self._labels(40)
        ]
        self._execute("SELECT count(*) FROM herald.send_batch(%s::jsonb)", json.dumps(messages))

    def _payloads(self):
        topic = self.random.choice(TOPICS)
        payloads = [json.dumps({"label": label}) for label, _ in self._labels(40, topic)]
        self._execute("SELECT count(*) FROM herald.publish_batch(%s, %s::jsonb[])", topic, payloads)

    def _insert(self):
        rows = self._labels(20)
        self._execute(
            "INSERT INTO herald.message (topic, content) SELECT * FROM unnest(%s::text[], %s::text[])",
            [topic for _, topic in rows],
            [label for label, _ in rows],
        )

    def _copy(self):
        with self.connection.cursor().copy("COPY herald.message (topic, content) FROM STDIN") as copy:
            for label, topic in self._labels(40):
                copy.write_row((topic, label))

    def _execute(self, statement, *parameters):
        self.connection.execute(statement, parameters or None)


def connect_again(cluster, database, timeout=60):
    """A connection as soon as the server takes one."""

    def attempt():
        try:
            return cluster.connect(database, connect_timeout=10)
        except psycopg.OperationalError:
            return None

    return wait_until(attempt, timeout, "a connection to PostgreSQL")


def join_all(threads, timeout=120):
    """Waits for the threads' ends and raises the first failure of one of them."""
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.failure:
            raise thread.failure
    if late := [thread.name for thread in threads if thread.is_alive()]:
        raise TimeoutError(f"not finished after {timeout} s: {late}")
