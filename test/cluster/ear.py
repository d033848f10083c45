"""Listening and measuring for tests of the engine, whose announcements come some time after the
commit: nothing here may run a statement on a connection that LISTENs, psycopg would drop what
comes meanwhile."""

import select
import statistics
import threading
import time

import psycopg

from herald import wait_until


class Ear(threading.Thread):
    """Hears channels from the moment it is made until it is closed: `heard` has (monotonic time,
    channel, payload) in the order of arrival."""

    def __init__(self, cluster, database, *channels):
        super().__init__(daemon=True)
        self.heard = []
        self.failure = None
        self._ended = threading.Event()
        self._connection = cluster.connect(database)
        for channel in channels:
            self._connection.execute(
                psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))
            )
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self):
        pgconn = self._connection.pgconn
        try:
            while not self._ended.is_set():
                select.select([pgconn.socket], [], [], 0.05)
                pgconn.consume_input()
                now = time.monotonic()
                while notification := pgconn.notifies():
                    payload = notification.extra.decode()
                    self.heard.append((now, notification.relname.decode(), payload))
        except psycopg.OperationalError as failure:
            self.failure = failure

    def payloads(self, channel=None):
        return [p for _, c, p in list(self.heard) if channel in (None, c)]

    def wait_for(self, count, timeout=30):
        """All payloads as soon as there are so many."""

        def enough():
            if self.failure:
                raise self.failure
            return len(self.heard) >= count

        wait_until(enough, timeout, f"notification {count} (there are {len(self.heard)})")
        return self.payloads()

    def close(self):
        self._ended.set()
        self.join(10)
        self._connection.close()


class Stranger(threading.Thread):
    """Commits row after row to a table of its own; `longest` is the longest that took (seconds)."""

    def __init__(self, cluster, database):
        super().__init__(daemon=True)
        self.longest = 0.0
        self._ended = threading.Event()
        self._connection = cluster.connect(database)
        self._connection.execute("CREATE TABLE stranger (at timestamptz)")
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()
        self._connection.close()

    def run(self):
        while not self._ended.is_set():
            begin = time.monotonic()
            self._connection.execute("INSERT INTO stranger VALUES (now())")
            self.longest = max(self.longest, time.monotonic() - begin)


class Probe(threading.Thread):
    """Sends a message, waits until it has arrived, and so on until `finish`: `delays` are the
    seconds from before the send to the arrival, by LISTEN or, `by_read`, by herald.read."""

    kDeadline = 20  # seconds until a message counts as lost

    def __init__(self, cluster, database, topic, by_read=False):
        super().__init__(daemon=True)
        self.topic, self.by_read = topic, by_read
        self.delays = []
        self.failure = None
        self._ended = threading.Event()
        self._sender = cluster.connect(database)
        self._sender.execute("SELECT 1")
        self._receiver = cluster.connect(database)
        if not by_read:
            self._receiver.execute(f'LISTEN "{topic}"')
        self._last = self._receiver.execute("SELECT herald.horizon()").fetchone()[0]

    def __enter__(self):
        self.start()
        wait_until(lambda: self.delays or self.failure, what="the first arrival")
        return self

    def __exit__(self, failed, *_):
        self._ended.set()
        self.join(self.kDeadline + 10)
        self._sender.close()
        self._receiver.close()
        if self.failure and not failed:
            raise self.failure

    def run(self):
        number = 0
        try:
            while not self._ended.is_set():
                number += 1
                begin = time.monotonic()
                self._sender.execute("SELECT herald.publish(%s, %s)", [self.topic, str(number)])
                self._await(number, begin + self.kDeadline)
                self.delays.append(time.monotonic() - begin)
        except Exception as failure:  # raised again where the probe ends
            self.failure = failure

    def more(self, count, timeout=60):
        """Returns when so many more messages have arrived."""
        wanted = len(self.delays) + count
        wait_until(lambda: len(self.delays) >= wanted or self.failure, timeout, "more arrivals")

    def _await(self, number, deadline):
        while time.monotonic() < deadline:
            found = self._read() if self.by_read else self._listen(deadline)
            assert found in ([], [number]), f"{found} arrived, message {number} was sent"
            if found:
                return
        raise TimeoutError(f"message {number} on {self.topic} did not arrive")

    def _read(self):
        rows = self._receiver.execute(
            "SELECT pos, content::int FROM herald.read(%s, %s)", [self.topic, self._last]
        ).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [content for _, content in rows]

    def _listen(self, deadline):
        pgconn = self._receiver.pgconn
        select.select([pgconn.socket], [], [], max(0, deadline - time.monotonic()))
        pgconn.consume_input()
        found = []
        while notification := pgconn.notifies():
            found.append(int(notification.extra.decode().partition('"content":')[2].rstrip("}")))
        return found


def quantile(values, share):
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def tell(name, seconds):
    """Prints a distribution; pytest -s shows it."""
    values = [1000 * value for value in seconds]
    print(
        f"{name}: n {len(values)}, p50 {statistics.median(values):.1f},"
        f" p90 {quantile(values, 0.9):.1f}, p99 {quantile(values, 0.99):.1f},"
        f" max {max(values):.1f} ms"
    )


def engine(connection, column):
    return connection.execute(f"SELECT {column} FROM herald.engine").fetchone()[0]


def dispatcher(connection, other_than=None):
    """The pid of the database's dispatcher as soon as one runs that is not `other_than`."""

    def running():
        pid = engine(connection, "dispatcher_pid")
        return pid if pid != other_than else None

    return wait_until(running, what="the start of the dispatcher")


def dispatchers(connection):
    """The databases in which a dispatcher runs; `connection` may be to any."""
    rows = connection.execute(
        "SELECT datname FROM pg_stat_activity WHERE backend_type = 'herald dispatcher'"
    )
    return sorted(name for (name,) in rows if name)
