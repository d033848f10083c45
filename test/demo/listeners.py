"""The three kinds of listeners of the demonstration. Each keeps, by position, the exact text of
every envelope it got, and in `order` the positions as they came."""

import asyncio
import json
import re
import subprocess

import websockets

from herald import spawn, wait_until

kDeadline = 60  # seconds


class Heard:
    def __init__(self):
        self.envelopes = {}
        self.order = []

    def take(self, text):
        pos = json.loads(text)["pos"]
        self.order.append(pos)
        self.envelopes[pos] = text

    def has(self, count):
        return len(self.order) >= count


class Psql(Heard):
    """LISTEN in a real psql. It prints what it has heard after each command it is given."""

    HEARD = re.compile(
        r'^Asynchronous notification ".*?" with payload "(.*)" received from server process', re.M
    )

    def __init__(self, cluster, database, topics, folder):
        super().__init__()
        self.printed = folder / "psql"
        with open(self.printed, "wb") as output:
            self.process = spawn(
                [cluster.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"],
                env=cluster.environment(database),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
            )
        names = ", ".join("'" + topic.replace("'", "''") + "'" for topic in topics)
        self.command(
            f"SELECT format('LISTEN %I', herald.channel(t)) FROM unnest(ARRAY[{names}]) t \\gexec\n"
            "\\echo listening"
        )
        wait_until(self._listens, kDeadline, "psql's LISTEN")

    def command(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def gather(self, count):
        """Waits until `count` notifications were printed."""

        def all_there():
            self.command("SELECT WHERE false;")
            return len(self.HEARD.findall(self._text())) >= count

        try:
            wait_until(all_there, kDeadline, f"psql's {count} notifications")
        except TimeoutError as error:
            print(f"LISTEN: {error}")
        for payload in self.HEARD.findall(self._text()):
            self.take(payload)

    def close(self):
        self.process.stdin.close()
        self.process.wait(kDeadline)

    def _listens(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"psql ended: {self._text()}")
        return "listening" in self._text()

    def _text(self):
        return self.printed.read_text(encoding="utf-8")


class WebSocket(Heard):
    """A client of the notifier; `async with` connects it and subscribes to everything."""

    def __init__(self, url, **start):
        super().__init__()
        self.url, self.start = url, start
        self.changed = asyncio.Event()

    async def __aenter__(self):
        self.socket = await websockets.connect(self.url, max_size=None, max_queue=None)
        await self.socket.send(json.dumps({"op": "sub", "topic": "*", "id": 1} | self.start))
        while True:  # what is replayed comes before the answer
            frame = await asyncio.wait_for(self.socket.recv(), kDeadline)
            answer = json.loads(frame)
            if answer.get("op") == "ok":
                break
            if "op" in answer:
                raise RuntimeError(f"the notifier answered {frame}")
            self.take(frame)
        self.reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self.reader.cancel()
        await self.socket.close()

    async def gather(self, count):
        """Waits until `count` messages have come."""

        async def all_there():
            while not self.has(count):
                self.changed.clear()
                await self.changed.wait()

        try:
            await asyncio.wait_for(all_there(), kDeadline)
        except asyncio.TimeoutError:
            print(f"WebSocket: {len(self.order)} of {count} messages came within {kDeadline} s")

    async def _read(self):
        async for frame in self.socket:
            if "op" not in json.loads(frame):
                self.take(frame)
                self.changed.set()
