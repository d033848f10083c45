"""Readers that resume: by paging with herald.read(), and by WebSocket.

Each keeps what it was given, in the order it came. All stop when they have seen a *sentinel*, the
last message of a topic, on each topic they match. They tell nothing about right or wrong, except
for what no reader may ever be told here (a gap, a reset).
"""

import asyncio
import fnmatch
import json
import random
import threading

import psycopg
import websockets

from workload import TOPICS, connect_again

SENTINEL = "sentinel"


def matching(patterns):
    """The topics that at least one of the patterns (or names) matches."""
    return {t for t in TOPICS if any(fnmatch.fnmatchcase(t, pattern) for pattern in patterns)}


class PagingReader(threading.Thread):
    """Pages through a topic or pattern by position while others send, in pages of random size,
    sometimes several in one transaction with an old snapshot."""

    def __init__(self, topics, isolation, cluster, database, seed):
        super().__init__(name=f"reader of {topics} ({isolation})")
        self.topics, self.isolation = topics, isolation
        self.cluster, self.database = cluster, database
        self.random = random.Random(f"{seed} {self.name}")
        self.wanted = matching([topics])
        self.after = 0
        self.received = []  # (pos, label)
        self.failure = None

    def run(self):
        try:
            while self.wanted:
                connection = connect_again(self.cluster, self.database)
                try:
                    with connection:
                        self._read(connection)
                except psycopg.OperationalError:
                    continue
        except BaseException as failure:  # reported by join_all in the test's own thread
            self.failure = failure

    def _read(self, connection):
        while self.wanted:
            connection.execute(f"BEGIN ISOLATION LEVEL {self.isolation}")
            connection.execute("SELECT 1")  # takes the snapshot, where the level keeps one
            for _ in range(self.random.randint(1, 3)):
                self._page(connection)
            connection.execute("COMMIT")

    def _page(self, connection):
        rows = connection.execute(
            "SELECT pos, topic, CASE WHEN is_json THEN content::jsonb->>'label' ELSE content END"
            " FROM herald.read(%s, %s, %s)",
            (self.topics, self.after, self.random.choice((1, 7, 100, 1000))),
        ).fetchall()
        for pos, topic, label in rows:
            self.received.append((pos, label))
            self.after = pos
            if label == SENTINEL:
                self.wanted.discard(topic)


class WebSocketReader:
    """A WebSocket client with some subscriptions. Comes back after every lost connection and
    resumes each subscription after the highest position it has seen for it. Cuts its own
    connection, without a word, after a random number of frames.

    With subscriptions that overlap, a message may have come by either, so one whose replay has not
    been finished by "ok" cannot be said to have reached it: there `reached` moves from "ok" on."""

    def __init__(self, name, subscriptions, url, seed):
        self.name, self.url = name, url
        self.random = random.Random(f"{seed} {name}")
        self.reached = dict.fromkeys(subscriptions, 0)
        self.topics = {s: matching([s]) for s in subscriptions}
        self.wanted = matching(subscriptions)
        self.overlapping = sum(map(len, self.topics.values())) > len(self.wanted)
        self.live = set()  # the subscriptions answered by "ok" on this connection
        self.received = []  # (connection, pos, frame)
        self.connections = 0

    async def run(self):
        while self.wanted:
            try:
                async with websockets.connect(
                    self.url, max_size=None, open_timeout=10, close_timeout=0.1
                ) as socket:
                    self.connections += 1
                    await self._listen(socket)
            except (OSError, asyncio.TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(0.02)  # nobody is there yet: as a real client, not too often

    async def _listen(self, socket):
        self.live.clear()
        for subscription in self.reached:
            await self._subscribe(socket, subscription)
        patience = self.random.randint(2000, 12000)
        async for text in socket:
            frame = json.loads(text)
            if "pos" in frame and "op" not in frame:
                self._message(frame, text)
            else:
                await self._answer(socket, frame)
            patience -= 1
            if not self.wanted:
                return
            if patience == 0:
                socket.transport.abort()

    async def _subscribe(self, socket, subscription):
        await socket.send(
            json.dumps(
                {
                    "op": "sub",
                    "topic": subscription,
                    "after": self.reached[subscription],
                    "id": subscription,
                }
            )
        )

    def _message(self, frame, text):
        self.received.append((self.connections, frame["pos"], text))
        for subscription, topics in self.topics.items():
            certain = subscription in self.live or not self.overlapping
            if certain and frame["topic"] in topics:
                self.reached[subscription] = max(self.reached[subscription], frame["pos"])
        if frame["content"] == SENTINEL:
            self.wanted.discard(frame["topic"])

    async def _answer(self, socket, frame):
        if frame["op"] == "ok":
            self.live.add(frame["id"])
            self.reached[frame["id"]] = max(self.reached[frame["id"]], frame["pos"])
        elif frame["op"] == "err" and frame["code"] == "unavailable":
            await asyncio.sleep(frame["retry_ms"] / 1000)
            await self._subscribe(socket, frame["id"])
        elif frame["op"] != "bye" or frame["code"] == 4010:
            raise AssertionError(f"{self.name} was told {frame}")


class WebSocketReaders(threading.Thread):
    """Runs WebSocket readers in a loop of their own."""

    def __init__(self, readers):
        super().__init__(name="WebSocket readers")
        self.readers = readers
        self.failure = None

    def run(self):
        async def all_of_them():
            await asyncio.gather(*(reader.run() for reader in self.readers))

        try:
            asyncio.run(all_of_them())
        except BaseException as failure:  # reported by join_all in the test's own thread
            self.failure = failure
