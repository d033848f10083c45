"""Latency: from the call that sends to the arrival at a client, for send_message heard by WebSocket
and by LISTEN, against the notification of a plain NOTIFY. One client program (probe.cpp) sends and
hears in all, one message at a time. No notifier runs while LISTEN is measured.

The plain NOTIFY is that of INSERT + pg_notify, which stores the message as send_message does. A
NOTIFY that stores nothing, and so waits for no flush, is shown beside it.
"""

import subprocess
from contextlib import contextmanager

from common import alternate, heading, median, number, program, table, verdict
from herald import Notifier, spawn
from herald.system import run
from load import CONTENT, ENVELOPE, FLUSH_NOTE, FLUSHES, Load, database_with_rivals

TOPIC = "bench:latency"
SENDERS = 32
IDLE_AIM = 1.3  # p50
LOADED_AIM = 0.2  # p99
FIGURES = ("p50", "p99", "max")

_HERALD = f"SELECT herald.send_message('probe', NULL, '{CONTENT}', topic => '{TOPIC}')"
_STORED = (
    "WITH sent AS (INSERT INTO notified_message (topic, sender, content)"
    f" VALUES ('{TOPIC}', 'probe', '{CONTENT}') RETURNING topic)"
    f" SELECT pg_notify(topic, '{ENVELOPE}') FROM sent"
)
_NOTIFY = f"SELECT pg_notify('{TOPIC}', '{ENVELOPE}')"


class Probe:
    """Runs probe.cpp; each result is a dictionary of FIGURES in microseconds."""

    def __init__(self, cluster, database, options, samples, rate, seconds):
        self.conninfo = cluster.conninfo(database, options=options)
        self.limits = (samples, rate, seconds)

    def listen(self, sql):
        return self.measure("listen", sql)

    def websocket(self):
        with Notifier(self.conninfo) as notifier:
            return self.measure("websocket", _HERALD, notifier.port)

    def measure(self, mode, sql, *port):
        output = run([program("probe"), mode, self.conninfo, sql, TOPIC, *self.limits, *port])
        return dict(zip((*FIGURES, "samples"), map(float, output.split())))


def measure(cluster, quick):
    rounds, samples, rate = (2, 300, 500) if quick else (5, 1000, 500)
    database = database_with_rivals(cluster)
    heading(
        "Latency, idle: send_message to its arrival, against INSERT + pg_notify to LISTEN",
        f"microseconds; {number(samples)} messages a round, {rate} a second, fsync on,"
        f" {rounds} rounds each, alternating",
        FLUSH_NOTE,
    )
    rows = []
    for flush, options in FLUSHES:
        probe = Probe(cluster, database, options, samples, rate, seconds=60)
        stored, listened, pushed, bare = alternate(
            rounds,
            lambda: probe.listen(_STORED),
            lambda: probe.listen(_HERALD),
            probe.websocket,
            lambda: probe.listen(_NOTIFY),
        )
        rows += [
            figures(f"INSERT + pg_notify to LISTEN{flush}", stored),
            figures(f"send_message to LISTEN{flush}", listened, stored, "p50", IDLE_AIM),
            figures(f"send_message to WebSocket{flush}", pushed, stored, "p50"),
            figures(f"NOTIFY that stores nothing{flush}", bare, stored, "p50"),
        ]
    table(["", *FIGURES, "p50 ratio", "aim"], rows)
    cluster.drop_database(database)


def measure_loaded(cluster, quick):
    rounds, seconds = (2, 2) if quick else (3, 6)
    database = database_with_rivals(cluster)
    load = Load(cluster, database)
    load.warm_up(("herald", "notify"))
    heading(
        f"Latency, loaded: the same while {SENDERS} other clients send the same way",
        f"microseconds; one after the other, 200 a second at most, for {seconds} s a round,"
        f" {rounds} rounds each, alternating",
        FLUSH_NOTE,
    )
    rows = []
    for flush, options in FLUSHES:
        probe = Probe(cluster, database, options, samples=10_000, rate=200, seconds=seconds)

        def side(script, sql):
            with sending(load, script, seconds + 30, options):
                return probe.listen(sql)

        stored, listened = alternate(
            rounds, lambda: side("notify", _STORED), lambda: side("herald", _HERALD)
        )
        rows += [
            figures(f"INSERT + pg_notify to LISTEN{flush}", stored),
            figures(f"send_message to LISTEN{flush}", listened, stored, "p99",
                    LOADED_AIM if flush else None),
        ]  # fmt: skip
    table(["", *FIGURES, "p99 ratio", "aim"], rows)
    cluster.drop_database(database)


@contextmanager
def sending(load, script, seconds, options):
    """Runs pgbench beside the block, from when all its clients are connected to the block's end."""
    process = spawn(
        load.arguments(script, SENDERS, seconds),
        env=load.environment(options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        load.await_clients(SENDERS)
        yield
        if process.poll() is not None:
            raise RuntimeError("pgbench ended before the measurement did")
    finally:
        process.kill()
        process.wait()
        load.await_clients(0)


def figures(name, results, rival=None, figure=None, aim=None):
    row = [name, *(number(median(results, lambda r, f=f: r[f])) for f in FIGURES)]
    if rival is None:
        return [*row, "", ""]
    ratio = median(results, lambda r: r[figure]) / median(rival, lambda r: r[figure])
    return [*row, number(ratio, 2), verdict(ratio, at_most=aim) if aim else ""]
