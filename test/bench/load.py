"""Senders and their rivals: the tables, the pgbench scripts and the settings that are compared.

The rivals get every benefit of the doubt: their tables have the log's columns and indexes but are
not partitioned, their ids are herald's cheap and ordered ones, their notification is a constant
text as long as the envelope, and they build no JSON.
"""

import re
from contextlib import contextmanager

from common import Child, program
from herald import wait_until, work_directory
from herald.system import run

CONTENT = "x" * 100
ENVELOPE = "y" * 300  # what the envelope of the message takes
LISTENED = "agent:7:inbox"

# How long a flush of the WAL takes: as this machine's disk does, or as long as it does on others.
FLUSHES = (("", ""), (", flush 1 ms", "-c commit_delay=1000 -c commit_siblings=0"))
FLUSH_NOTE = "flush 1 ms: commit_delay=1000, commit_siblings=0, as on a disk that takes this long"

# pgbench takes any ":name" for a variable, inside quotes too: colons come from chr(58).
_RIVAL_INSERT = f"""INSERT INTO {{table}} (topic, sender, recipient, content)
    VALUES ('agent' || chr(58) || :agent || chr(58) || 'inbox', 'pm', :agent::text, '{CONTENT}')"""
SCRIPTS = {
    "herald": f"SELECT herald.send_message('pm', :agent::text, '{CONTENT}');",
    "insert": _RIVAL_INSERT.format(table="plain_message") + ";",
    "pgq": f"SELECT pgq.insert_event('bench', 'notification', '{CONTENT}');",
    "notify": f"WITH sent AS (\n{_RIVAL_INSERT.format(table='notified_message')}\n"
    f"    RETURNING id, topic)\nSELECT id, pg_notify(topic, '{ENVELOPE}') FROM sent;",
}


def rival_table(name):
    return f"""
CREATE TABLE {name} (LIKE herald.message INCLUDING INDEXES INCLUDING STORAGE);
CREATE SEQUENCE {name}_pos_seq;
ALTER TABLE {name}
    ALTER pos SET DEFAULT nextval('{name}_pos_seq'),
    ALTER id SET DEFAULT herald.uuid_v7(),
    ALTER at SET DEFAULT clock_timestamp(),
    ALTER message_type SET DEFAULT 'notification',
    ALTER priority SET DEFAULT 0,
    ALTER is_json SET DEFAULT false;
"""


def database_with_rivals(cluster):
    """A new database with the rivals' tables; with the engine, its dispatcher runs."""
    database = cluster.create_database()
    cluster.psql(rival_table("plain_message") + rival_table("notified_message"), database)
    if cluster.engine:
        wait_until(
            lambda: cluster.psql("SELECT dispatcher_pid FROM herald.engine", database).strip(),
            what="the dispatcher",
        )
    return database


class Load:
    """pgbench with the scripts above, on one database."""

    def __init__(self, cluster, database):
        self.cluster, self.database = cluster, database
        self.folder = work_directory("bench")
        for name, text in SCRIPTS.items():
            (self.folder / name).write_text(f"\\set agent random(1, 1000)\n{text}\n")

    def arguments(self, name, clients, seconds):
        return [
            self.cluster.program("pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}", f"--jobs={min(clients, 2)}", f"--time={seconds}",
            f"--file={self.folder / name}",
        ]  # fmt: skip

    def environment(self, options):
        return self.cluster.environment(self.database) | {"PGOPTIONS": options}

    def rate(self, name, clients, seconds, options=""):
        """Transactions a second."""
        output = run(self.arguments(name, clients, seconds), env=self.environment(options))
        failed = re.search(r"number of failed transactions: (\d+)", output)
        if failed and int(failed[1]):
            raise RuntimeError(output)
        return float(re.search(r"tps = ([\d.]+) \(without initial", output)[1])

    def await_clients(self, clients):
        """Returns when so many clients of pgbench are connected."""
        with self.cluster.connect(self.database) as connection:
            wait_until(
                lambda: connection.execute(
                    "SELECT count(*) = %s FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'pgbench'",
                    [clients],
                ).fetchone()[0],
                what=f"{clients} clients of pgbench",
            )

    def warm_up(self, names):
        """Topics, caches and files exist before the first round."""
        for name in names:
            self.rate(name, 4, 1)


@contextmanager
def listener(cluster, database):
    """A client that LISTENs on one of the thousand topics; says in the end how much it heard."""
    with Child(program("probe"), "drain", cluster.conninfo(database), LISTENED) as child:
        child.hear("ready")
        yield child
        print(f"    (the LISTEN client heard {int(child.end()):,} messages of its topic)")
