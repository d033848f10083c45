"""Ends what its parent started and did not end itself, even if the parent died by SIGKILL.

Runs as a child with a pipe as standard input. Lines: `process PID SIGNAL`, `folder PATH`,
`forget PATH`. At end of file: every process that still runs gets its signal, and SIGKILL ten
seconds later; then the folders are removed. Processes are held by pidfd, so a number that was
used again is never hit.
"""

import os
import select
import shutil
import signal
import sys


def alive(fd, timeout_ms=0):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(timeout_ms)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes, folders = [], []
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "folder":
            folders.append(rest)
        elif verb == "forget":
            folders.remove(rest)
        else:
            pid, number = map(int, rest.split())
            for entry in [entry for entry in processes if not alive(entry[0])]:
                os.close(entry[0])
                processes.remove(entry)
            try:
                processes.append((os.pidfd_open(pid), number))
            except ProcessLookupError:
                continue  # ended before we got here
    running = [entry for entry in processes if alive(entry[0])]
    for fd, number in running:
        signal.pidfd_send_signal(fd, number)
    for fd, _ in running:
        if alive(fd, 10_000):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            alive(fd, 10_000)
    for folder in reversed(folders):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
