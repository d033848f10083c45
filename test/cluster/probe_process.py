"""What a Probe runs: sends a message, waits until it has arrived, and so on, until its standard input
ends. Prints a line for each: the seconds of the send, and from its end to the arrival, both less what
the machine itself paused.

Arguments: connection string, topic, `listen` or `read`.
"""

import select
import sys
import time

import psycopg

from pauses import Pauses

DEADLINE = 20  # seconds until a message counts as lost


class Listening:
    def __init__(self, conninfo, topic):
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._connection.execute(f'LISTEN "{topic}"')

    def arrived(self, deadline):
        """The numbers that came since, as soon as there may be any."""
        pgconn = self._connection.pgconn
        select.select([pgconn.socket], [], [], max(0, deadline - time.monotonic()))
        pgconn.consume_input()
        found = []
        while notification := pgconn.notifies():
            found.append(int(notification.extra.decode().partition('"content":')[2].rstrip("}")))
        return found


class Reading:
    def __init__(self, conninfo, topic):
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._topic = topic
        self._last = self._connection.execute("SELECT herald.horizon()").fetchone()[0]

    def arrived(self, _):
        rows = self._connection.execute(
            "SELECT pos, content::int FROM herald.read(%s, %s)", [self._topic, self._last]
        ).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [content for _, content in rows]


def await_arrival(receiver, number, deadline):
    while time.monotonic() < deadline:
        found = receiver.arrived(deadline)
        assert found in ([], [number]), f"{found} arrived, message {number} was sent"
        if found:
            return
    raise TimeoutError(f"message {number} did not arrive")


def main(conninfo, topic, way):
    sender = psycopg.connect(conninfo, autocommit=True)
    receiver = {"listen": Listening, "read": Reading}[way](conninfo, topic)
    pauses = Pauses()
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        begin = time.monotonic()
        sender.execute("SELECT herald.publish(%s, %s)", [topic, str(number)])
        sent = time.monotonic()
        await_arrival(receiver, number, begin + DEADLINE)
        spans = ((begin, sent), (sent, time.monotonic()))
        print(*(max(0, end - start - pauses.between(start, end)) for start, end in spans), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
