"""A long log: sends a second into a log with millions of messages against an empty one."""

from common import alternate, heading, median, number, spread, table, verdict
from load import CONTENT, Load, database_with_rivals, listener

AIM = 0.95
CLIENTS = 16
_CHUNK = 100_000
_FILL = f"""
INSERT INTO herald.message (topic, sender, recipient, content)
SELECT 'agent:' || agent || ':inbox', 'pm', agent::text, '{CONTENT}'
  FROM (SELECT 1 + floor(1000 * random())::int AS agent FROM generate_series(1, %s)) AS row
"""


def measure(cluster, quick, full):
    rounds, seconds = (2, 1) if quick else (9, 2)
    messages = 10_000_000 if full else 100_000 if quick else 1_000_000
    heading(
        f"Long log: herald.send_message with {number(messages)} messages in the log, against none",
        f"pgbench -M prepared, {CLIENTS} clients, 1,000 topics, fsync on, one LISTEN client each,"
        f" {rounds} rounds of {seconds} s each, alternating",
    )
    databases = [database_with_rivals(cluster) for _ in range(2)]
    long, empty = (Load(cluster, database) for database in databases)
    fill(cluster, databases[0], messages)
    with listener(cluster, databases[0]), listener(cluster, databases[1]):
        for load in (long, empty):
            load.warm_up(("herald",))
        ours, theirs = alternate(
            rounds,
            *(
                lambda load=load: load.rate("herald", CLIENTS, seconds)
                for load in (long, empty)
            ),
        )
    ratio = median(ours) / median(theirs)
    table(
        ["", "long log/s", "rounds", "empty log/s", "rounds", "ratio", "aim"],
        [
            [
                f"{CLIENTS} clients", number(median(ours)), spread(ours), number(median(theirs)),
                spread(theirs), number(ratio, 2), verdict(ratio, at_least=AIM),
            ]
        ],
    )  # fmt: skip
    for database in databases:
        cluster.drop_database(database)


def fill(cluster, database, messages):
    """Stores them; in the end they are counted (see sql/20_topics.sql) and on disk."""
    with cluster.connect(database) as connection:
        for _ in range(messages // _CHUNK):
            connection.execute(_FILL, [_CHUNK])
        connection.execute("SELECT herald.maintain()")
        connection.execute("VACUUM (FREEZE, ANALYZE) herald.message")
        connection.execute("CHECKPOINT")
