"""How long messages take: sends one, waits until it has arrived, and so on.

The sending and waiting is done by a process of its own (probe_process.py), so that nothing the test
itself computes is measured with it.
"""

import statistics
import subprocess
import sys
import threading
from pathlib import Path

from herald import wait_until
from herald.system import spawn

_PROCESS = Path(__file__).with_name("probe_process.py")


class Probe:
    """`delays`: for each message the seconds from before the send to the arrival, by LISTEN or,
    `by_read`, by herald.read; `arrivals`: the part of them that came after the commit. Both are
    net of the machine's own pauses (pauses.py)."""

    def __init__(self, cluster, database, topic, by_read=False):
        self.delays = []
        self.arrivals = []
        way = "read" if by_read else "listen"
        self._arguments = [cluster.conninfo(database), topic, way]

    def __enter__(self):
        self._process = spawn(
            [sys.executable, "-B", _PROCESS, *self._arguments],
            as_ourselves=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()
        self.more(1)
        return self

    def __exit__(self, failed, *_):
        self._process.stdin.close()
        self._follower.join(60)
        if self._process.wait(10) and not failed:
            raise RuntimeError(self._errors)

    def _follow(self):
        for line in self._process.stdout:
            send, arrival = map(float, line.split())
            self.delays.append(send + arrival)
            self.arrivals.append(arrival)
        self._errors = self._process.stderr.read()

    def forget(self):
        """Counts from here on."""
        self.delays.clear()
        self.arrivals.clear()

    def more(self, count, timeout=60):
        """Returns when so many more messages have arrived."""
        wanted = len(self.delays) + count
        wait_until(
            lambda: len(self.delays) >= wanted or not self._follower.is_alive(),
            timeout,
            "more arrivals",
        )


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
