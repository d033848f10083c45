"""Retention: removing old messages whole, against DELETE and PgQ's rotation, and what senders notice of
it; and a log that is filled and emptied for a while."""

import statistics
import threading
import time

from common import heading, number, table, verdict
from herald import wait_until, work_directory
from herald.system import run
from load import CONTENT, Load, database_with_rivals
from log import fill

CLIENTS = 16
WORK_AIM = 1.0  # seconds for 10 million messages
P99_AIM = 1.5
STEADY_AIM = 0.97
MEGABYTE = 1 << 20
FILL = 100_000  # events in a transaction

_COPY = f"""
INSERT INTO plain_message (topic, sender, recipient, content)
SELECT 'agent:' || (1 + n %% 1000) || ':inbox', 'pm', (1 + n %% 1000)::text, '{CONTENT}'
  FROM generate_series(1, %s) n
"""
_PGQ = """
CREATE EXTENSION pgq;
SELECT pgq.create_queue('bench'), pgq.set_queue_config('bench', 'rotation_period', '0 seconds');
"""
_PGQ_FILL = f"""
SELECT count(pgq.insert_event('bench', 'notification', '{CONTENT}')) FROM generate_series(1, %s)
"""
_DEAD = "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname ~ %s"


def latencies(load, script, seconds):
    """Of each transaction of pgbench, in milliseconds."""
    folder = work_directory("latencies")
    run(
        [*load.arguments(script, CLIENTS, seconds), "--log", f"--log-prefix={folder}/log"],
        env=load.environment(""),
    )
    return [
        int(line.split()[2]) / 1000
        for path in folder.iterdir()
        for line in path.read_text().splitlines()
    ]


def p99(values):
    return statistics.quantiles(values, n=100)[98]


class Removal:
    """What is removed while others send: how long it takes, and their p99 with it and without."""

    after = 0  # seconds until the disk is back, too
    beside_after = None  # p99 in that time

    def __init__(self, load, script, remove, dead):
        self.load, self.script, self.remove, self.dead_tables = load, script, remove, dead

    def measure(self, seconds):
        quiet = latencies(self.load, self.script, seconds)
        with self.load.cluster.connect(self.load.database) as connection:
            thread = threading.Thread(target=self._remove_beside_senders, args=[connection])
            thread.start()
            values = latencies(self.load, self.script, seconds)
            while thread.is_alive():  # DELETE may take longer than one run
                values += latencies(self.load, self.script, seconds)
            thread.join()
            self.beside = p99(values)
            self._await_disk(connection, seconds)
            self.quiet = p99(quiet + latencies(self.load, self.script, seconds))
            connection.execute("SELECT pg_stat_force_next_flush()")
            self.dead = connection.execute(_DEAD, [self.dead_tables]).fetchone()[0]

    def _await_disk(self, connection, seconds):
        values = []
        while connection.execute("SELECT count(*) FROM herald.waste").fetchone()[0] > 0:
            values += latencies(self.load, self.script, seconds)
            self.beside_after = p99(values)
        self.after = time.monotonic() - self._begin

    def _remove_beside_senders(self, connection):
        self.load.await_clients(CLIENTS)
        self._begin = time.monotonic()
        self.remove(connection)
        self.seconds = time.monotonic() - self._begin


def let_go(connection):
    """Of all but the newest segment; the keeper removes the others."""
    connection.execute(
        "SELECT herald.trim('*', first_pos) FROM herald.segments WHERE held_by = 'open'"
    )
    gone = "SELECT min(held_by) FROM herald.segments WHERE held_by <> 'ahead'"
    wait_until(lambda: connection.execute(gone).fetchone()[0] == "open", 120, "their end")


def delete(connection):
    connection.execute("DELETE FROM plain_message WHERE pos < 2000000000")


def rotate(connection):
    """Until the one of PgQ's three tables that has the messages has been truncated."""
    for wanted in (1, 2, 0):
        connection.execute("SELECT pgq.maint_rotate_tables_step1('bench')")
        connection.execute("SELECT pgq.maint_rotate_tables_step2()")
        current = connection.execute("SELECT queue_cur_table FROM pgq.queue").fetchone()[0]
        if current != wanted:
            raise RuntimeError(f"PgQ writes to its table {current}, not {wanted}")


def measure(cluster, quick, full):
    seconds = 2 if quick else 6
    messages = 10_000_000 if full else 100_000 if quick else 1_000_000
    heading(
        f"Retention: {number(messages)} messages of 1,000 topics go while {CLIENTS} clients send,"
        " against DELETE of as many from an equal table and PgQ's rotation",
        f"seconds; p99 of the senders in milliseconds, in runs of {seconds} s, fsync on",
    )
    database = database_with_rivals(cluster)
    load = Load(cluster, database)
    fill(cluster, database, messages)
    with cluster.connect(database) as connection:
        connection.execute(_COPY, [messages])
        connection.execute("ALTER SEQUENCE plain_message_pos_seq RESTART WITH 2000000000")
        connection.execute(_PGQ)
        for _ in range(messages // FILL):
            connection.execute(_PGQ_FILL, [FILL])
        connection.execute("SELECT herald.start_segment()")
        connection.execute("VACUUM (FREEZE, ANALYZE) plain_message")
        connection.execute("CHECKPOINT")
    load.warm_up(("herald", "insert", "pgq"))
    ours = Removal(load, "herald", let_go, "^message_")
    theirs = Removal(load, "insert", delete, "^plain_message$")
    rows = []
    rotation = Removal(load, "pgq", rotate, "^event_")
    for name, removal in (
        ("herald.trim, segments gone", ours), ("DELETE", theirs), ("PgQ, rotation", rotation)
    ):  # fmt: skip
        removal.measure(seconds)
        ratio = removal.beside / removal.quiet
        mine = removal is ours
        rows.append(
            [
                name, number(removal.seconds, 2),
                verdict(removal.seconds, at_most=WORK_AIM) if mine else "",
                number(removal.quiet, 1), number(removal.beside, 1), number(ratio, 2),
                verdict(ratio, at_most=P99_AIM) if mine else "", number(removal.dead),
            ]
        )  # fmt: skip
    table(["", "seconds", "aim", "p99 without", "beside it", "ratio", "aim", "dead rows"], rows)
    if ours.beside_after is not None:
        print(
            f"    Its disk was back after {number(ours.after, 0)} s; p99 of the senders in that time:"
            f" {number(ours.beside_after, 1)}"
        )
    cluster.drop_database(database)


def measure_steady(cluster, quick, full):
    """Sends at full rate with segments that begin and go all the time. How fast the machine itself is
    meanwhile, INSERTs into a table that is emptied before each slot say."""
    slots, slot, age = (5, 20, 10) if full else (1, 2, 1) if quick else (2, 5, 2)
    heading(
        f"Steady load: {CLIENTS} clients send for {6 * slots * slot} s, everything is kept for"
        f" {8 * age} s, a segment for {age} s; every {slot} s bare INSERTs for {max(1, slot // 4)} s",
        "transactions a second, and megabytes on disk in the end, by sixths of that time",
    )
    database = database_with_rivals(cluster)
    load = Load(cluster, database)
    with cluster.connect(database) as connection:
        connection.execute(f"ALTER DATABASE \"{database}\" SET herald.segment_age = {age}")
        connection.execute(  # it goes by the settings that there were when it began
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE backend_type = 'herald keeper' AND datname = current_database()"
        )
        connection.execute("SELECT herald.set_retention('*', %s)", [f"{8 * age} s"])
        load.warm_up(("herald", "insert"))
        ours, theirs, sizes = [], [], []
        for _ in range(6):
            rates = {"herald": [], "insert": []}
            for _ in range(slots):
                rates["herald"].append(load.rate("herald", CLIENTS, slot))
                connection.execute("TRUNCATE plain_message")
                rates["insert"].append(load.rate("insert", CLIENTS, max(1, slot // 4)))
            ours.append(statistics.median(rates["herald"]))
            theirs.append(statistics.median(rates["insert"]))
            sizes.append(disk(connection))
    ratios = [mine / other for mine, other in zip(ours, theirs)]
    steady = ratios[-1] / ratios[0]
    table(
        ["", *(str(n) for n in range(1, 7)), "last / first", "aim"],
        [
            ["sends/s", *map(number, ours), number(ours[-1] / ours[0], 2), ""],
            ["INSERTs/s", *map(number, theirs), number(theirs[-1] / theirs[0], 2), ""],
            ["ratio", *(number(r, 2) for r in ratios), number(steady, 2),
             verdict(steady, at_least=STEADY_AIM)],
            ["MB", *(number(size / MEGABYTE) for size in sizes), "", ""],
        ],
    )  # fmt: skip
    cluster.drop_database(database)


def disk(connection):
    """Bytes of all tables of the bus, with their indexes."""
    return connection.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relnamespace = 'herald'::regnamespace AND relkind = 'r'"
    ).fetchone()[0]
