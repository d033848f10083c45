"""When the machine did not run what was ready to run: a virtual processor that its host gave to
others, a container over its quota, strangers at work. No program can answer during that time, so
what is said of ours is said net of it.

One thread for each processor sleeps for some milliseconds again and again, and notes when it was
woken late. A program of ours that keeps a processor busy does not make it late, as the scheduler
prefers those that sleep; one that makes others wait for a lock does not either.
"""

import os
import threading
import time

_NAP = 0.005  # seconds
_LATE = 0.015  # from here on it is not the scheduler's usual business
_MOST = 8  # processors; who has more is not short of them


class Pauses:
    def __init__(self):
        self._clocks = [_Clock(cpu) for cpu in sorted(os.sched_getaffinity(0))[:_MOST]]

    def between(self, begin, end):
        """The seconds of pause between two values of time.monotonic(), the later one not long ago:
        the sum over the processors, for what is waited for may have gone from one to the other."""
        return sum(clock.between(begin, end) for clock in self._clocks)


class _Clock:
    def __init__(self, cpu):
        self._cpu = cpu
        self._due = time.monotonic() + 1
        self._pauses = []  # (begin, end)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        os.sched_setaffinity(0, {self._cpu})  # of this thread
        while True:
            self._due = time.monotonic() + _NAP
            time.sleep(_NAP)
            now = time.monotonic()
            if now - self._due > _LATE:
                self._pauses.append((self._due, now))
                del self._pauses[:-1000]

    def between(self, begin, end):
        pauses = [*self._pauses, (self._due, time.monotonic())]  # the last: it may be late now
        return sum(max(0, min(end, last) - max(begin, first)) for first, last in pauses)
