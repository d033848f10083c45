"""Sending: herald.send_message against what a user would write without it: a bare INSERT, which
tells nobody, and INSERT + pg_notify. One client LISTENs on one of the thousand topics in all.
"""

from common import SETTINGS, alternate, heading, median, number, spread, table, verdict
from herald import Cluster
from load import FLUSH_NOTE, FLUSHES, Load, database_with_rivals, listener

# (clients, 1 ms flush): at least this part of the bare INSERT.
INSERT_AIMS = {(1, False): 0.8, (16, True): 0.9, (64, False): 0.95, (64, True): 0.95}
NOTIFY_AIM = 15  # times, 64 clients, 1 ms flush
PLAIN_AIM = 0.8  # of INSERT + pg_notify, without the engine


def measure(cluster, quick):
    rounds, seconds = (2, 1) if quick else (5, 2)
    database = database_with_rivals(cluster)
    load = Load(cluster, database)
    heading(
        "Send: herald.send_message against a bare INSERT and INSERT + pg_notify into equal tables",
        f"pgbench -M prepared, 1,000 topics, fsync on, one LISTEN client, {rounds} rounds of"
        f" {seconds} s each, alternating",
        FLUSH_NOTE,
    )
    bare, notified = [], []
    with listener(cluster, database):
        load.warm_up(("herald", "insert", "notify"))
        for flush, options in FLUSHES:
            for clients in (1, 16, 64):
                names = ("herald", "insert", "notify")[: 3 if clients == 64 else 2]
                ours, *theirs = alternate(
                    rounds,
                    *(
                        lambda name=name: load.rate(name, clients, seconds, options)
                        for name in names
                    ),
                )
                aims = (INSERT_AIMS.get((clients, bool(flush))), NOTIFY_AIM if flush else None)
                for rows, rates, aim in zip((bare, notified), theirs, aims):
                    rows.append(row(f"{clients} clients{flush}", ours, rates, aim))
    table(["", "herald/s", "rounds", "INSERT/s", "rounds", "ratio", "aim"], bare)
    table(["", "herald/s", "rounds", "INSERT + NOTIFY/s", "rounds", "ratio", "aim"], notified)
    cluster.drop_database(database)


def measure_plain(_, quick):
    rounds, seconds = (1, 1) if quick else (3, 2)
    with Cluster("bench", settings=SETTINGS, engine=False) as cluster:
        database = database_with_rivals(cluster)
        load = Load(cluster, database)
        heading(
            "Send without the engine: herald.send_message against INSERT + pg_notify",
            f"as above, {rounds} round(s) of {seconds} s each; both commit one after the other",
        )
        rows = []
        with listener(cluster, database):
            load.warm_up(("herald", "notify"))
            for flush, options in FLUSHES:
                ours, theirs = alternate(
                    rounds,
                    lambda: load.rate("herald", 64, seconds, options),
                    lambda: load.rate("notify", 64, seconds, options),
                )
                rows.append(row(f"64 clients{flush}", ours, theirs, PLAIN_AIM))
        table(["", "herald/s", "rounds", "INSERT + NOTIFY/s", "rounds", "ratio", "aim"], rows)


def row(name, ours, theirs, aim):
    ratio = median(ours) / median(theirs)
    return [
        name, number(median(ours)), spread(ours), number(median(theirs)), spread(theirs),
        number(ratio, 2), verdict(ratio, at_least=aim) if aim else "",
    ]  # fmt: skip
