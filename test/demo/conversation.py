"""A conversation of four agents and a watched table, followed on four ways at once.

Shows for each message that it is stored, heard by LISTEN in psql, pushed to a WebSocket client that
was there from the start, and replayed to one that comes late; and that its envelope is the same,
byte for byte, on all four. Any miss, repetition, disorder or difference ends it with exit code 1.
"""

import argparse
import asyncio
import shlex
import signal
import subprocess
import sys

from herald import Cluster, Notifier, free_port

from listeners import Psql, WebSocket

PM, BACKEND, FRONTEND, TESTER = "project-manager", "backend", "frontend", "tester"
FEATURE = "feature-login"
PACKAGES = "machine:packages"
AGENTS = (PM, BACKEND, FRONTEND, TESTER)
TOPICS = ["broadcast", PACKAGES] + [f"agent:{name}:inbox" for name in AGENTS]
DATABASE = "herald"


class Conversation:
    """The agents' messages; each call is one transaction."""

    def __init__(self, connection):
        self.connection = connection

    def send(self, sender, recipient, content, kind, **options):
        names = {
            "sender": sender,
            "recipient": recipient,
            "content": content,
            "message_type": kind,
            "conversation": FEATURE,
        } | options
        call = ", ".join(f"{name} => %s" for name in names)
        query = f"SELECT herald.send_message({call})"
        return self.connection.execute(query, list(names.values())).fetchone()[0]

    def reply(self, message, content):
        query = "SELECT herald.reply(%s, %s)"
        return self.connection.execute(query, (message, content)).fetchone()[0]

    def hold(self):
        self.send(PM, None, "Stand-up: today we ship the login.", "notification")
        task = self.send(
            PM, BACKEND, "Please build POST /login.", "request",
            metadata='{"task": 7}', priority=5,
        )  # fmt: skip
        self.reply(task, "On it.")
        form = self.send(PM, FRONTEND, "Please build the login form.", "request")
        self.reply(form, "On it, too.")
        question = self.send(FRONTEND, BACKEND, "Is the “name” in field login or user?", "request")
        self.reply(question, '"user", in UTF-8: José may log in.')
        self.send(BACKEND, PM, "POST /login is done.", "notification", metadata='{"task": 7}')
        self.send(FRONTEND, PM, "The form is done.", "notification")
        test = self.send(FRONTEND, TESTER, "Yours: please test the login.", "command")
        self.reply(test, "Tested: 12 cases, all of them pass.")

    def load_packages(self):
        """The packages of this machine into a watched table, in one statement."""
        listed = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package}\t${Architecture}\t${Version}\n"],
            stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        rows = [line.split("\t") for line in listed.splitlines()]
        self.connection.execute("CREATE TABLE package (name text, architecture text, version text)")
        self.connection.execute("SELECT herald.watch('package', %s)", (PACKAGES,))
        self.connection.execute(
            "INSERT INTO package SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])",
            [list(column) for column in zip(*rows)],
        )
        return len(rows)


def report(stored, packages, listeners):
    """Prints the table; true if every message came everywhere, once, in order and identical."""
    good = True

    def line(*cells):
        widths = (64, 8, 6, *map(len, listeners))
        text = "  ".join(f"{cell[:width]:<{width}}" for cell, width in zip(cells, widths))
        print(text.rstrip())

    def message(text, rows):
        """One message, or several in sum."""
        nonlocal good
        first, last = rows[0][0], rows[-1][0]
        marks = []
        for heard in listeners.values():
            came = sum(pos in heard.envelopes for pos, _, _ in rows)
            good &= came == len(rows)
            marks.append(("yes" if came else "NO") if first == last else f"{came}")
        place = f"{first}" if first == last else f"{first}-{last}"
        line(text, place, "yes" if first == last else f"{len(rows)}", *marks)

    print()
    line("message", "pos", "stored", *listeners)
    line("-" * 64, "-" * 8, "-" * 6, *("-" * len(name) for name in listeners))
    talk = [row for row in stored if row[1] != PACKAGES]
    for row in talk:
        message(row[2], [row])
    loaded = [row for row in stored if row[1] == PACKAGES]
    if loaded:
        message(f"{len(loaded)} rows of dpkg-query in one INSERT, by watch()", loaded)
    if len(loaded) != packages:
        print(f"{packages} packages were inserted, {len(loaded)} messages stored")
        good = False

    positions = [pos for pos, _, _ in stored]
    for name, heard in listeners.items():
        if heard.order != positions:
            print(
                f"{name}: the {len(heard.order)} messages that came are not the {len(positions)}"
                " stored ones, each once and in order"
            )
            good = False
    return good


def compare(envelopes, listeners):
    """True if each listener got the bytes that envelope() gives."""
    different = [
        (name, pos, heard.envelopes[pos], text)
        for pos, text in envelopes.items()
        for name, heard in listeners.items()
        if pos in heard.envelopes and heard.envelopes[pos].encode() != text.encode()
    ]
    for name, pos, got, expected in different[:5]:
        print(f"{name}: message {pos} differs from envelope():\n  {got}\n  {expected}")
    if not different:
        print(f"\nEnvelopes: {len(envelopes)} messages, the four of each are byte-identical.")
    return not different


async def show(cluster, notifier):
    url = notifier.url("/ws/connect", user="demo")
    with cluster.connect(DATABASE) as connection:
        psql = Psql(cluster, DATABASE, TOPICS, cluster.folder)
        async with WebSocket(url) as live:
            conversation = Conversation(connection)
            conversation.hold()
            packages = conversation.load_packages()
            stored = connection.execute(
                "SELECT pos, topic, coalesce(sender, '') || ' → ' || coalesce(recipient, 'everybody')"
                " || ': ' || content FROM herald.messages ORDER BY pos"
            ).fetchall()
            await live.gather(len(stored))
            psql.gather(len(stored))
            async with WebSocket(url, after=0) as late:
                await late.gather(len(stored))
        psql.close()
        envelopes = dict(
            connection.execute(
                "SELECT m.pos, herald.envelope(m)::text FROM herald.messages m"
            ).fetchall()
        )
    listeners = {"LISTEN": psql, "pushed live": live, "replayed": late}
    complete = report(stored, packages, listeners)
    return compare(envelopes, listeners) and complete


def stay(cluster, notifier):
    socket = shlex.quote(str(cluster.socket_dir))
    print(
        f"""
Still running; Ctrl-C ends and removes everything.
  browser    {notifier.url("/", scheme="http")}
  wscat      npx wscat -c '{notifier.url(user="you")}'
             > {{"op":"sub","topic":"*","last":3,"id":1}}
  psql       psql -h {socket} -p {cluster.port} -U postgres {DATABASE}
             SELECT herald.send_message('you', 'backend', 'hello');""",
        flush=True,
    )
    signal.pause()


def main():
    parser = argparse.ArgumentParser(prog="test/demo/run")
    parser.add_argument("--once", action="store_true", help="end after the table")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with Cluster("run", engine=True) as cluster:
        cluster.create_database(DATABASE)
        address = f"127.0.0.1:{free_port(8080)}"
        print(f"== a conversation: PostgreSQL in {cluster.folder}, notifier on {address}", flush=True)
        with Notifier(cluster.conninfo(DATABASE), listen=address) as notifier:
            good = asyncio.run(show(cluster, notifier))
            if not options.once:
                stay(cluster, notifier)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\n== stopped; everything is removed")
