"""Sending: herald.send_message against what a user would write without it, INSERT + pg_notify into
a table with the same columns and indexes.

The rival gets every benefit of the doubt: its notification is a constant text as long as the
envelope, it builds no JSON, and its table is not partitioned. One client LISTENs on one of the
thousand topics in both.
"""

import re

from common import Child, alternate, heading, median, number, program, table, verdict
from herald import work_directory
from herald.system import run

CONTENT = "x" * 100
ENVELOPE = "y" * 300  # what the envelope of the message takes
LISTENED = "agent:7:inbox"
AIM = 0.8

# pgbench takes any ":name" for a variable, inside quotes too: colons come from chr(58).
HERALD_SCRIPT = f"""\\set agent random(1, 1000)
SELECT herald.send_message('pm', :agent::text, '{CONTENT}');
"""
RIVAL_SCRIPT = f"""\\set agent random(1, 1000)
WITH sent AS (
    INSERT INTO plain_message (topic, sender, recipient, content)
    VALUES ('agent' || chr(58) || :agent || chr(58) || 'inbox', 'pm', :agent::text, '{CONTENT}')
    RETURNING id, topic)
SELECT id, pg_notify(topic, '{ENVELOPE}') FROM sent;
"""

RIVAL_TABLE = """
CREATE TABLE plain_message (LIKE herald.message INCLUDING INDEXES INCLUDING STORAGE);
CREATE SEQUENCE plain_message_pos_seq;
ALTER TABLE plain_message
    ALTER pos SET DEFAULT nextval('plain_message_pos_seq'),
    ALTER id SET DEFAULT gen_random_uuid(),
    ALTER at SET DEFAULT clock_timestamp(),
    ALTER message_type SET DEFAULT 'notification',
    ALTER priority SET DEFAULT 0,
    ALTER is_json SET DEFAULT false;
"""


def run_pgbench(cluster, database, script, clients, seconds, options):
    output = run(
        [
            cluster.program("pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}", "--jobs=2", f"--time={seconds}", f"--file={script}",
        ],
        env=cluster.environment(database) | {"PGOPTIONS": options},
    )  # fmt: skip
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if failed and int(failed[1]):
        raise RuntimeError(output)
    return float(re.search(r"tps = ([\d.]+) \(without initial", output)[1])


def measure(cluster, quick):
    rounds, seconds = (3, 2) if quick else (5, 5)
    database = cluster.create_database()
    cluster.psql(RIVAL_TABLE, database)
    folder = work_directory("bench")
    scripts = {}
    for name, text in (("herald", HERALD_SCRIPT), ("rival", RIVAL_SCRIPT)):
        scripts[name] = folder / f"{name}.sql"
        scripts[name].write_text(text)
    heading(
        "Send: herald.send_message against INSERT + pg_notify into an equal table",
        f"pgbench -M prepared, 1,000 topics, fsync on, one LISTEN client, {rounds} rounds of"
        f" {seconds} s each, alternating",
        "flush 1 ms: commit_delay=1000, commit_siblings=0, as on a disk that takes this long",
    )
    rows = []
    with Child(program("probe"), "drain", cluster.conninfo(database), LISTENED) as listener:
        listener.hear("ready")
        for script in scripts.values():  # topics, caches and files exist before the first round
            run_pgbench(cluster, database, script, 4, 1, "")
        for delay, options in (("", ""), (", flush 1 ms", "-c commit_delay=1000 -c commit_siblings=0")):
            for clients in (16, 64):
                ours, theirs = alternate(
                    rounds,
                    *(
                        lambda script=script: run_pgbench(
                            cluster, database, script, clients, seconds, options
                        )
                        for script in (scripts["herald"], scripts["rival"])
                    ),
                )
                ratio = median(ours) / median(theirs)
                rows.append(
                    [
                        f"{clients} clients{delay}",
                        number(median(ours)), spread(ours),
                        number(median(theirs)), spread(theirs),
                        number(ratio, 2), verdict(ratio, at_least=AIM),
                    ]
                )  # fmt: skip
        heard = int(listener.end())
    table(
        ["", "herald/s", "rounds", "INSERT + NOTIFY/s", "rounds", "ratio", "aim"], rows
    )
    print(f"    (the LISTEN client heard {number(heard)} messages of its topic)")
    cluster.drop_database(database)


def spread(rounds):
    return f"{number(min(rounds))}-{number(max(rounds))}"
