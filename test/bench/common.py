"""What the benchmarks share: building the client programs, rounds that alternate, tables.

Every comparison runs A B A B ...: `alternate` calls the sides in turn, so that a machine that
grows slower or faster meets both, and medians of the rounds are compared.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

from herald import ROOT, spawn

HERE = Path(__file__).resolve().parent
_BUILD = ROOT / ".build" / "bench"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Of the clusters that are measured.
SETTINGS = {
    "fsync": "on",
    "max_connections": 100,
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum_naptime": "1h",  # no side is hit by a vacuum that the other escapes
}


def program(name):
    """Path of one of our C++ clients, compiled if it is older than its sources."""
    binary = _BUILD / name
    sources = [HERE / f"{name}.cpp", HERE / "socket.h"]
    if not binary.exists() or any(s.stat().st_mtime > binary.stat().st_mtime for s in sources):
        _BUILD.mkdir(parents=True, exist_ok=True)
        include = subprocess.check_output(["pg_config", "--includedir"], text=True).strip()
        subprocess.run(
            ["g++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror", f"-I{include}",
             sources[0], "-lpq", "-o", binary],
            check=True,
        )  # fmt: skip
    return binary


def node_modules():
    """Installs the rival's packages from the lock file unless they are there."""
    if not (HERE / "node_modules" / "ws").exists():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=HERE, check=True, stdout=sys.stderr,
        )  # fmt: skip


class Child:
    """A helper process that is spoken to in lines; ended when the block ends."""

    def __init__(self, *arguments):
        self.name = Path(str(arguments[0])).name
        self.process = spawn(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    @property
    def pid(self):
        return self.process.pid

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, beginning):
        """The rest of the next line, which must begin with this."""
        line = self.process.stdout.readline().rstrip("\n")
        if not line.startswith(beginning):
            raise RuntimeError(f"{self.name} said {line!r} where {beginning!r} was expected")
        return line[len(beginning) :].strip()

    def end(self):
        """Closes its stdin and gives back what it still says."""
        self.process.stdin.close()
        rest = self.process.stdout.read()
        if self.process.wait():
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
        return rest.strip()


def cpu_seconds(pid):
    """User and system time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE


def alternate(rounds, *sides):
    """Calls the sides in turn, `rounds` times each. Gives a list of results for each side."""
    results = [[] for _ in sides]
    for _ in range(rounds):
        for side, collected in zip(sides, results):
            collected.append(side())
    return results


def median(rounds, key=lambda result: result):
    return statistics.median(key(result) for result in rounds)


def spread(rounds):
    return f"{number(min(rounds))}-{number(max(rounds))}"


def number(value, digits=0):
    return f"{value:,.{digits}f}"


def heading(title, *notes):
    print(f"\n{title}")
    for note in notes:
        print(f"  {note}")


def table(columns, rows):
    """Prints rows of strings below their column names; the first column is left-aligned."""
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    for line in [columns, *rows]:
        cells = [f"{line[0]:<{widths[0]}}"]
        cells += [f"{text:>{width}}" for text, width in zip(line[1:], widths[1:])]
        print("    " + "   ".join(cells))
    sys.stdout.flush()


def verdict(value, at_least=None, at_most=None):
    """The aim of a figure and whether it is met."""
    if at_least is not None:
        return f">= {at_least:g} {'met' if value >= at_least else 'MISSED'}"
    return f"<= {at_most:g} {'met' if value <= at_most else 'MISSED'}"
