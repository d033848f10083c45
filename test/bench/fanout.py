"""Fan-out and memory: herald-notifier against a node `ws` server.

Fan-out: the same bytes to the same 1,000 connections of the same client (ws_load.cpp). Ours come
through the database: publish_batch, doorbell, feed, hub; the rival has them in memory. Both get
the next batch when the slowest connection has all but one of the earlier ones, so neither drowns
its clients. Time runs from the first batch's publishing to the last frame's arrival. The server's
own processor time is shown beside it, because on a small machine the client competes with it.
"""

import time

from common import (
    HERE,
    Child,
    alternate,
    cpu_seconds,
    heading,
    median,
    node_modules,
    number,
    program,
    resident_bytes,
    table,
    verdict,
)
from herald import Notifier, work_directory

TOPIC = "bench:fanout"
FANOUT_AIM = 3
MEMORY_AIM = 4.0  # KiB
CORKED = 64
_WINDOW = 2  # batches under way


class Broadcast:
    """One run of a server that broadcasts `total` messages in batches of `step`."""

    def __init__(self, connections, total, step):
        self.connections, self.total, self.step = connections, total, step

    def through(self, pid, port, path, publish, sub):
        with Child(
            program("ws_load"), "--port", port, "--path", path, "--connections", self.connections,
            "--sub", sub, "--step", self.step, "--total", self.total,
        ) as client:  # fmt: skip
            client.hear("ready")
            before, start = cpu_seconds(pid), time.monotonic()
            batches = self.total // self.step
            for batch in range(batches):
                if batch >= _WINDOW:
                    client.hear("at ")
                publish()
            for _ in range(min(_WINDOW, batches)):
                client.hear("at ")
            frames, size, client_cpu = map(float, client.hear("done ").split())
            seconds = time.monotonic() - start
            return {
                "rate": frames / seconds,
                "cpu": (cpu_seconds(pid) - before) / frames * 1e6,
                "client": client_cpu / frames * 1e6,
                "bytes": size / frames,
            }


def measure_fanout(cluster, quick):
    rounds, connections, total, step = (1, 1000, 2000, 500) if quick else (3, 1000, 3000, 1000)
    node_modules()
    database = cluster.create_database()
    frames = work_directory("bench") / "frames"
    broadcast = Broadcast(connections, total, step)

    def herald():
        with cluster.connect(database) as connection:
            first = connection.execute("SELECT herald.horizon()").fetchone()[0]
            with Notifier(cluster.conninfo(database)) as notifier:
                result = broadcast.through(
                    notifier.pid,
                    notifier.port,
                    "/ws/connect?user=bench",
                    lambda: connection.execute(
                        "SELECT count(*) FROM herald.publish_batch(%s, (SELECT array_agg("
                        "to_jsonb(repeat('x', 100))) FROM generate_series(1, %s)))",
                        [TOPIC, step],
                    ),
                    '{"op":"sub","topic":"%s","id":1}' % TOPIC,
                )
            with frames.open("w", encoding="utf-8") as file:
                for (envelope,) in connection.execute(
                    "SELECT herald.envelope(m)::text FROM herald.messages m"
                    " WHERE topic = %s AND pos > %s ORDER BY pos",
                    [TOPIC, first],
                ):
                    file.write(envelope + "\n")
        return result

    def rival(corked):
        with Child("node", HERE / "ws_server.mjs", frames, corked) as server:
            port = server.hear("listening ")
            return broadcast.through(
                server.pid, port, "/", lambda: server.say(f"go {step}"), '{"op":"sub"}'
            )

    ours, theirs, corked = alternate(rounds, herald, lambda: rival(1), lambda: rival(CORKED))
    heading(
        f"Fan-out: one topic to {number(connections)} connections, deliveries per second",
        f"{number(total)} messages of {median(ours, lambda r: r['bytes']):.0f} bytes a round,"
        f" {rounds} round(s) each, alternating; ours from SQL, the rival's from memory",
    )
    rows = []
    for name, results in (
        ("herald-notifier", ours),
        ("node ws", theirs),
        (f"node ws, {CORKED} messages corked", corked),
    ):
        rate, cpu, client = (median(results, lambda r, k=k: r[k]) for k in ("rate", "cpu", "client"))
        row = [name, number(rate), number(cpu, 2), number(client, 2)]
        if results is not ours:
            ratio = median(ours, lambda r: r["rate"]) / rate
            by_cpu = cpu / median(ours, lambda r: r["cpu"])
            row += [number(ratio, 2), number(by_cpu, 2), verdict(ratio, at_least=FANOUT_AIM)]
        rows.append(row + [""] * (7 - len(row)))
    table(
        ["", "deliveries/s", "server us CPU each", "client us CPU each", "ours/its", "by CPU", "aim"],
        rows,
    )
    cluster.drop_database(database)


def measure_memory(cluster, quick):
    connections = 1000 if quick else 5000
    node_modules()
    database = cluster.create_database()

    def idle(pid, port, path, sub=None):
        before = resident_bytes(pid)
        options = ["--port", port, "--path", path, "--connections", connections]
        with Child(program("ws_load"), *options, *(["--sub", sub] if sub else [])) as client:
            client.hear("ready")
            return (resident_bytes(pid) - before) / connections / 1024

    def herald(sub=None):
        limit = str(connections + 100)
        with Notifier(cluster.conninfo(database), "--max-connections", limit) as notifier:
            return idle(notifier.pid, notifier.port, "/ws/connect?user=bench", sub)

    def rival():
        with Child("node", HERE / "ws_server.mjs") as server:
            return idle(server.pid, server.hear("listening "), "/")

    rounds = 1 if quick else 3
    bare, subscribed, theirs = alternate(
        rounds, herald, lambda: herald('{"op":"sub","topic":"agent:%:inbox","id":1}'), rival
    )
    heading(
        f"Memory: resident KiB for each of {number(connections)} idle WebSocket connections",
        f"RSS with them minus RSS before, divided by their number; {rounds} round(s) each, alternating",
    )
    table(
        ["", "KiB", "aim"],
        [
            ["herald-notifier", number(median(bare), 2), verdict(median(bare), at_most=MEMORY_AIM)],
            ["herald-notifier, each on a topic of its own", number(median(subscribed), 2),
             verdict(median(subscribed), at_most=MEMORY_AIM)],
            ["node ws", number(median(theirs), 2), ""],
        ],
    )  # fmt: skip
    print(f"    node ws takes {median(theirs) / median(bare):.2f} times as much")
    cluster.drop_database(database)
