"""Listening, for tests of the engine, whose announcements come some time after the commit: nothing
here may run a statement on a connection that LISTENs, psycopg would drop what comes meanwhile."""

import select
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
