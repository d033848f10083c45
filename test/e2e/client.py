"""A small client of the herald.v1 protocol on the `websockets` library, for tests.

    async with Client(notifier, user="anna") as client:
        ok = await client.ask(op="sub", topic="agent:*", after=0)    the reply with our id
        message = await client.message()                             the next message
        closed = await client.closed()                               (code, the bye frame or None)

Frames come in the order of arrival: `ask` keeps what arrived before its answer for later calls.
A Frame is the decoded object; `raw` is its exact text. Every wait ends after kDeadline seconds
with an error that says what had arrived.
"""

import asyncio
import collections
import itertools
import json

import websockets

kDeadline = 30


class Frame(dict):
    def __init__(self, raw):
        super().__init__(json.loads(raw))
        self.raw = raw

    @property
    def is_message(self):
        return "op" not in self


class Client:
    def __init__(self, notifier, **query):
        self.url = notifier.url("/ws/connect", **query)
        self.waiting = collections.deque()
        self.bye = None
        self._ids = itertools.count(1)
        self._socket = None

    async def __aenter__(self):
        self._socket = await websockets.connect(
            self.url, max_size=None, max_queue=None, ping_interval=None, open_timeout=kDeadline,
            subprotocols=["herald.v1"],
        )  # fmt: skip
        return self

    async def __aexit__(self, *_):
        await self._socket.close()

    async def close(self):
        await self._socket.close()

    @property
    def subprotocol(self):
        return self._socket.subprotocol

    async def write(self, frame):
        """Sends text as it is, bytes as a binary message, anything else as JSON."""
        raw = isinstance(frame, (str, bytes))
        await self._socket.send(frame if raw else json.dumps(frame))

    async def next(self):
        """The next frame of any kind."""
        return self.waiting.popleft() if self.waiting else await self._receive()

    async def ask(self, **frame):
        """Sends a frame with an id of ours and gives the ok or err that echoes it."""
        frame.setdefault("id", next(self._ids))
        await self.write(frame)
        return await self.reply(frame["id"])

    async def reply(self, identifier):
        for frame in self.waiting:
            if frame.get("op") in ("ok", "err") and frame.get("id") == identifier:
                self.waiting.remove(frame)
                return frame
        while True:
            frame = await self._receive()
            if frame.get("op") in ("ok", "err") and frame.get("id") == identifier:
                return frame
            self.waiting.append(frame)

    async def subscribe(self, topic, **options):
        """sub that must succeed; gives the ok frame."""
        frame = await self.ask(op="sub", topic=topic, **options)
        assert frame["op"] == "ok", frame
        return frame

    async def message(self):
        """The next frame, which must be a message."""
        frame = await self.next()
        assert frame.is_message, f"a message was expected, not {frame}"
        return frame

    async def messages(self, count):
        return [await self.message() for _ in range(count)]

    async def until(self, identifier):
        """All messages up to and without the one with this id: the fence."""
        seen = []
        while (frame := await self.message())["id"] != str(identifier):
            seen.append(frame)
        return seen

    async def closed(self):
        """Reads to the end: the close code and the bye frame, if one came."""
        try:
            while True:
                frame = await self._receive()
                self.waiting.append(frame)
        except websockets.ConnectionClosed:
            return self._socket.close_code, self.bye

    async def _receive(self):
        try:
            frame = Frame(await asyncio.wait_for(self._socket.recv(), kDeadline))
        except asyncio.TimeoutError:
            kept = [frame.raw[:200] for frame in self.waiting][-5:]
            raise TimeoutError(f"no frame within {kDeadline} s; unread before: {kept}") from None
        if frame.get("op") == "bye":
            self.bye = frame
        return frame


class Reader:
    """A client as the protocol wants it: it resumes each topic after the highest pos it has seen.

    `seen` is everything it was given, over all connections. Use `follow` as a task.
    """

    def __init__(self, notifier, topic, after=0):
        self.notifier, self.topic, self.pos = notifier, topic, after
        self.seen = []
        self.connections = 0
        self.gaps = []

    async def follow(self, done):
        """Reads until done(self) is true, coming back whenever the connection ends."""
        while not done(self):
            try:
                async with Client(self.notifier) as client:
                    self.connections += 1
                    await client.write({"op": "sub", "topic": self.topic, "after": self.pos})
                    while not done(self):
                        self._take(await client.next())
            except (OSError, asyncio.TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(0.01)  # between attempts while the notifier is away

    def _take(self, frame):
        if frame.get("op") == "gap":
            self.gaps.append(frame)
        elif frame.get("op") == "err":
            assert frame["code"] == "unavailable", frame
            raise ConnectionError(frame["message"])  # a moment after its start: come back
        elif frame.is_message:
            self.seen.append(frame)
        if "pos" in frame:
            self.pos = max(self.pos, frame["pos"])
