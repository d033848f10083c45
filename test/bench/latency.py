"""Latency: from the call of send_message to the WebSocket frame, against the notification that a
libpq client gets by LISTEN. One client program (probe.cpp) sends and hears in both, one message
at a time; no notifier runs while LISTEN is measured.
"""

from common import alternate, heading, median, number, program, table
from herald import Notifier
from herald.system import run


def measure(cluster, quick):
    rounds, samples, rate = (2, 500, 500) if quick else (5, 4000, 500)
    database = cluster.create_database()
    conninfo = cluster.conninfo(database)

    def probe(mode, *more):
        output = run([program("probe"), mode, conninfo, samples, rate, *more])
        p50, p99, highest, _ = map(float, output.split())
        return {"p50": p50, "p99": p99, "max": highest}

    def websocket():
        with Notifier(conninfo) as notifier:
            return probe("websocket", notifier.port)

    pushed, listened = alternate(rounds, websocket, lambda: probe("listen"))
    heading(
        "Latency: send_message to the WebSocket frame, against send_message to LISTEN in libpq",
        f"microseconds; {number(samples)} messages a round, {rate} a second, fsync on,"
        f" {rounds} rounds each, alternating",
    )
    figures = ("p50", "p99", "max")
    sides = (("WebSocket", pushed), ("LISTEN", listened))
    rows = [
        [name, *(number(median(results, lambda r, f=figure: r[f])) for figure in figures)]
        for name, results in sides
    ]
    rows.append(
        ["ratio"]
        + [
            number(median(pushed, lambda r, f=f: r[f]) / median(listened, lambda r, f=f: r[f]), 2)
            for f in figures
        ]
    )
    table(["", *figures], rows)
    cluster.drop_database(database)
