"""Readers of the model: by herald.read(), herald.feed() and herald.wait_for(), and LISTEN.

Each keeps what it was given, in the order it came, and stops at the stage's `target`: the last
position of its topics in the log of the run. A position that somebody was given, or that was called
decided, is a *sighting*. None of them ever waits for a sender.
"""

import random

from model_history import Hearing, Trail, parse_payload
from model_session import NOT_SERIALIZABLE, ConnectionLost, SqlError
from readers import matching

# Seconds after which a reader looks again though nothing has happened in the driver.
PATIENCE = 0.02


class Reader:
    """Keeps a session; `round` is one go at reading."""

    def __init__(self, name, topics, stage):
        self.name, self.topics, self.stage = name, topics, stage
        self.random = random.Random(name)
        self.covered = frozenset(matching([topics or "*"]))
        self.session = None

    async def run(self, seed):
        self.random = random.Random(f"{seed} {self.name}")
        self.after = self.stage.base
        self.begin()
        while not self.done():
            try:
                if not self.connected:
                    await self.connect()
                await self.round()
            except ConnectionLost:
                continue

    async def connect(self):
        session = await self.stage.open_session()
        await self.prepare(session)
        self.session = session

    async def prepare(self, session):
        """What a new session begins with."""

    @property
    def connected(self):
        return self.session is not None and not self.session.closed

    def begin(self):
        self.trail = Trail(self.name, self.covered)
        self.stage.history.trails.append(self.trail)

    def done(self):
        return self.after >= self.stage.target(self.covered)

    async def pause(self):
        """Until the others have committed a few times more."""
        goal = self.stage.commits + self.random.choice((1, 4, 12, 30))
        await self.stage.something(lambda: self.stage.commits >= goal, PATIENCE)

    def take(self, page):
        """A page: "pos id pos id …" or None. Returns how many rows it has."""
        words = (page or "").split()
        rows = [(int(pos), id) for pos, id in zip(words[::2], words[1::2])]
        self.trail.got += rows
        if rows:
            self.after = rows[-1][0]
            self.saw(self.after)
        return len(rows)

    def saw(self, position):
        self.stage.saw(position, self.name)

    async def page(self, limit):
        rows = await self.session.execute(
            "SELECT string_agg(pos || ' ' || id, ' ') FROM herald.read($1, $2, $3)",
            self.topics, self.after, limit,
        )  # fmt: skip
        self.stage.page_was_read()
        return self.take(rows[0][0])


class Pager(Reader):
    """Pages of random size, each in a transaction of its own."""

    async def round(self):
        if await self.page(self.random.choice((1, 7, 100, 1000))) == 0:
            await self.pause()


class SnapshotPager(Reader):
    """Pages in transactions whose snapshot is older than what is to be read."""

    async def round(self):
        level = self.random.choice(("REPEATABLE READ", "SERIALIZABLE"))
        try:
            await self.session.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT 1")
            await self.pause()
            for _ in range(self.random.randint(1, 4)):
                await self.page(self.random.choice((20, 500)))
            await self.session.execute("COMMIT")
        except SqlError as error:
            if error.sqlstate != NOT_SERIALIZABLE:
                raise
            await self.session.execute("ROLLBACK")


class Feed(Reader):
    """As notifiers read: goes on from the closing row."""

    async def round(self):
        rows = await self.session.execute(
            "SELECT max(pos) FILTER (WHERE topic IS NULL), string_agg(pos || ' ' ||"
            " substring(envelope FROM '\"id\":\"([^\"]+)\"'), ' ') FILTER (WHERE topic IS NOT NULL)"
            " FROM herald.feed($1, $2, $3, $4, $5)",
            self.topics, self.after, self.random.choice((1, 50, 1000)),
            self.random.choice((1, 5000, 1 << 20)), self.random.choice((200, 1 << 20)),
        )  # fmt: skip
        self.stage.page_was_read()
        closing, page = rows[0]
        before = self.after
        count = self.take(page)
        assert int(closing) >= max(before, self.after), (
            f"{self.name}: complete up to {closing} was told after {before}, {self.after}"
        )
        self.after = int(closing)
        self.saw(self.after)
        if count == 0:
            await self.pause()


class Waiter(Reader):
    """Lets the server do the waiting (with the engine only)."""

    async def round(self):
        rows = await self.session.execute(
            "SELECT string_agg(pos || ' ' || id, ' ') FROM herald.wait_for($1, $2, $3)",
            self.topics, self.after, self.random.choice(("20 ms", "1 s")),
        )  # fmt: skip
        self.take(rows[0][0])


class BellReader(Reader):
    """Reads when the doorbell rings, and believes it: everything up to there is read then."""

    async def prepare(self, session):
        await session.execute("LISTEN herald")
        self.rung = False

    async def round(self):
        if not self.rung:  # what was announced before LISTEN is there to be read
            self.rung = True
            await self.read_on()
        elif not self.session.notifications:
            await self.session.input()
        rung = 0
        while self.session.notifications:
            channel, payload = self.session.notifications.popleft()
            assert channel == "herald", f"{self.name} heard {channel}: {payload}"
            rung = max(rung, int(payload))
            self.saw(rung)
        if rung > self.after:
            await self.read_on()
            self.after = max(self.after, rung)

    async def read_on(self):
        limit = self.random.choice((10, 300))
        while await self.page(limit) == limit:
            pass


class Listener(Reader):
    """LISTENs on some topics and keeps the payloads."""

    def __init__(self, name, patterns, stage):
        super().__init__(name, "*", stage)
        self.covered = frozenset(matching(patterns))
        self.hearing = None

    def begin(self):
        self.listen_from(self.stage.base)

    def listen_from(self, horizon):
        self.hearing = Hearing(self.name, self.covered, horizon)
        self.stage.history.hearings.append(self.hearing)

    async def prepare(self, session):
        """In the middle of a run, what each connection hears is checked by itself."""
        if self.hearing:
            self.hearing.cut = True
        await self.listen(session)
        if self.hearing:
            rows = await session.execute("SELECT herald.horizon()")
            self.listen_from(int(rows[0][0]))

    async def listen(self, session):
        listens = "; ".join(f'LISTEN "{topic}"' for topic in sorted(self.covered))
        await session.execute(f"BEGIN; {listens}; COMMIT")

    async def round(self):
        if not self.session.notifications:
            await self.session.input()
        while self.session.notifications:
            channel, payload = self.session.notifications.popleft()
            assert channel in self.covered, f"{self.name} heard {channel}: {payload}"
            message = parse_payload(payload)
            self.hearing.heard.append(message)
            self.after = message[0]
            self.saw(self.after)


class PassingListener(Listener):
    """Hangs up when it has heard a little, and begins to LISTEN to one topic after the other."""

    async def listen(self, session):
        topics = sorted(self.covered)
        self.random.shuffle(topics)
        await session.execute("BEGIN")
        for topic in topics:
            await session.execute(f'LISTEN "{topic}"')
        await session.execute("COMMIT")
        self.enough = self.random.choice((1, 10, 40))

    async def round(self):
        await super().round()
        if len(self.hearing.heard) >= self.enough and not self.stage.ending:
            self.session.close()
