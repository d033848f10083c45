"""Senders that do everything a sender may do, at random, and keep books in a History.

What a sender decides comes from random numbers of its own for each transaction, so a seed decides
it; how the sessions interleave differs from run to run.

A transaction may be held open. With the engine: until the horizon has passed it or others have
committed, so that it is late. Without it: until readers have read some pages, because nobody else
can send before it ends.
"""

import asyncio
import contextlib
import json
import random

from model_history import Sent, Transaction
from model_session import CANCELED, NOT_SERIALIZABLE, ConnectionLost, SqlError
from workload import COMMITTED, TOPICS, UNKNOWN

BAD_TOPIC, RESERVED_TOPIC = "22023", "42939"

LEVELS = ["READ COMMITTED"] * 7 + ["REPEATABLE READ"] * 2 + ["SERIALIZABLE"]
FAR = 100_000  # a position so far above the horizon is that of a bulk sender; nothing passes it
ATTACKS = {"idle": ["terminate"], "statement": ["terminate", "cancel"],
           "commit": ["terminate", "cancel", "leave"]}  # fmt: skip


class Sender:
    """`stage` is the run (model.py): connections, conditions, what others have done."""

    def __init__(self, number, stage):
        self.name = f"s{number:02}"
        self.number = number
        self.stage = stage
        self.session = None
        self.state = "idle"  # active, holding or idle
        self.sent = 0
        self.lost_key = None  # (key, topic) whose fate is not known: to be sent again

    async def run(self, seed, transactions, kills):
        """So many transactions. `kills`: numbers of those in which the backend is killed."""
        self.lost_key = None
        self.set_state("active")
        for number in range(transactions):
            # Of its own for each transaction: how the last one went changes nothing for the next.
            self.random = random.Random(f"{seed} {self.name} {number}")
            if self.session is None or self.session.closed:
                self.session = await self.stage.open_session()
            await self.transaction(f"{self.name}#{number}", number in kills)
        self.set_state("idle")

    def set_state(self, state):
        self.state = state
        self.stage.tell()

    async def transaction(self, name, kill):
        self.current = transaction = Transaction(name, self.stage.now())
        self.plan_attack(kill)
        self.shared_key = None
        self.may_wait = True  # for another with the same key: others never wait for it for long
        refused = False
        try:
            try:
                if self.random.random() < 0.25:
                    await self.single_statement(transaction)
                else:
                    await self.block(transaction)
            except SqlError as error:
                self.require_expected(error)
                refused = True
                await self.session.execute("ROLLBACK")
        except ConnectionLost:
            self.stage.departed.add(self.session.pid)
            self.session.close()
            if transaction.commit_sent is not None and not refused:
                transaction.outcome = UNKNOWN
            self.lost_key = next(((m.key, m.topic) for m in transaction.messages if m.key), None)
        self.stage.enter(transaction)

    def plan_attack(self, kill):
        """Where in this transaction its backend is attacked, if at all, and how."""
        self.attack_at = self.attack = None
        self.attack_step = self.random.randint(0, 2)
        if kill:
            self.attack_at, self.attack = self.random.choice(list(ATTACKS)), "kill"
        elif self.random.random() < 0.05:
            self.attack_at = self.random.choice(list(ATTACKS))
            self.attack = self.random.choice(ATTACKS[self.attack_at])

    async def single_statement(self, transaction):
        """A transaction of its own without BEGIN."""
        transaction.began = transaction.commit_sent = self.stage.now()
        async with self.attacked("commit"):
            await self.send_somehow()
        self.answered(transaction)

    async def block(self, transaction):
        level = self.random.choice(LEVELS)
        hold_after = self.random.randint(0, 3) if self.random.random() < 0.2 else None
        self.may_wait = hold_after is None
        if self.may_wait and self.random.random() < 0.06:
            self.shared_key = f"shared {self.stage.run_number}.{self.random.randint(1, 3)}"
        transaction.began = self.stage.now()
        await self.session.execute(f"BEGIN ISOLATION LEVEL {level}")
        for step in range(self.random.choice((1, 1, 1, 2, 3, 4))):
            await self.step()
            if step == self.attack_step and self.attack_at == "idle":
                self.attack_at = None
                await self.stage.attack(self.attack, self.session)
            if step == hold_after:
                await self.hold()
        if self.random.random() < 0.2:
            await self.look()
        if self.random.random() < 0.15:
            await self.session.execute("ROLLBACK")
            return
        transaction.commit_sent = self.stage.now()
        if self.attack_at == "commit" and self.attack == "leave":
            await self.session.send_and_leave("COMMIT")
            raise ConnectionLost("left without waiting")
        async with self.attacked("commit"):
            await self.session.execute("COMMIT")
        if self.session.tag == "COMMIT":
            self.answered(transaction)
        else:
            raise AssertionError(f"{transaction.name}: COMMIT was answered by {self.session.tag}")

    def answered(self, transaction):
        transaction.ended = self.stage.now()
        transaction.outcome = COMMITTED

    async def step(self, depth=0):
        """One way of sending, now and then in a savepoint, which may hold another."""
        if depth < 2 and self.random.random() < 0.2:
            start = len(self.current.messages)
            name = f"level_{depth}"
            await self.session.execute(f"SAVEPOINT {name}")
            try:
                for _ in range(self.random.randint(1, 2)):
                    await self.step(depth + 1)
                if self.random.random() < 0.2:
                    await self.fail_somehow()
                undo = self.random.random() < 0.5
            except SqlError as error:
                self.require_expected(error)
                undo = True
            if undo:
                await self.session.execute(f"ROLLBACK TO SAVEPOINT {name}")
                self.current.discard(start)
            else:
                await self.session.execute(f"RELEASE SAVEPOINT {name}")
        elif self.random.random() < 0.02:
            await self.fail_somehow()
        else:
            async with self.attacked("statement"):
                await self.send_somehow()

    async def hold(self):
        """Stays open until the plan's condition holds, or nobody else has anything to do."""
        stage = self.stage
        wish, count = self.random.choice(("passed", "commits", "pages")), self.random.randint(1, 12)
        await self.look()
        lowest = min((m.seen_at for m in self.current.messages if m.seen_at), default=None)
        if not stage.engine:
            wish = "pages"
        elif wish == "passed" and (lowest is None or lowest > stage.horizon + FAR):
            wish = "commits"
        commits, pages = stage.commits + count, stage.pages + count
        condition = {
            "passed": lambda: stage.horizon >= lowest or not stage.active(),
            "commits": lambda: stage.commits >= commits or not stage.active(),
            "pages": lambda: stage.pages >= pages,
        }[wish]
        self.set_state("holding")
        await stage.until(condition, f"what keeps {self.current.name} open: {wish}")
        self.set_state("active")

    async def look(self):
        """At the position of one of its own messages, before the commit."""
        known = [m for m in self.current.messages if m.id and not m.key]
        if known:
            message = self.random.choice(known)
            rows = await self.session.execute(
                "SELECT pos FROM herald.message WHERE id = $1", message.id
            )
            assert len(rows) == 1, f"{self.current.name} does not see its own {message.label}"
            message.seen_at = int(rows[0][0])

    @contextlib.asynccontextmanager
    async def attacked(self, where):
        """The backend is attacked while the body waits for it, if that is the plan; with the COMMIT
        at the latest."""
        due = self.attack_at and where in (self.attack_at, "commit") and self.attack != "leave"
        if not due:
            yield
            return
        self.attack_at = None
        attack = asyncio.create_task(self.stage.attack(self.attack, self.session))
        try:
            yield
        finally:
            await attack

    @staticmethod
    def require_expected(error):
        # CANCELED is also a COPY that its client gives up.
        if error.sqlstate not in (CANCELED, NOT_SERIALIZABLE, BAD_TOPIC, RESERVED_TOPIC):
            raise error

    # Ways of sending

    async def send_somehow(self):
        ways = (self.message, self.publish, self.batch, self.payloads, self.insert, self.copy)
        await self.random.choices(ways, weights=(12, 8, 2, 2, 3, 2))[0]()

    async def fail_somehow(self):
        """A statement that fails after it has sent something."""
        way = self.random.choice((self.bad_batch, self.bad_insert, self.bad_copy))
        start = len(self.current.messages)
        try:
            await way()
        finally:
            self.current.discard(start)
        raise AssertionError(f"{self.current.name}: {way.__name__} succeeded")

    def some(self):
        if self.random.random() < 0.004:
            return 2000
        return int(300 ** self.random.random() ** 2)

    def new(self, topic=None):
        self.sent += 1
        label = f"{self.stage.run_number}.{self.name}.{self.sent}"
        sent = Sent(label, topic or self.random.choice(TOPICS))
        self.current.messages.append(sent)
        return sent

    def several(self, topic=None):
        if topic is None and self.random.random() < 0.5:
            topic = self.random.choice(TOPICS)
        return [self.new(topic) for _ in range(self.some())]

    def content(self, sent):
        """The label, now and then with something behind it."""
        return sent.label + self.random.choices(("", " x", " " + "y" * 900, " " + "z" * 9000),
                                                (80, 15, 4, 1))[0]  # fmt: skip

    async def message(self):
        sent = self.new()
        if self.shared_key:
            sent.key, sent.topic = self.shared_key, TOPICS[0]
        elif self.lost_key and self.may_wait:
            (sent.key, sent.topic), self.lost_key = self.lost_key, None
        elif self.random.random() < 0.1:
            sent.key = sent.label
        rows = await self.session.execute(
            "SELECT herald.send_message($1, NULL, $2, topic => $3, idempotency_key => $4)",
            self.name, self.content(sent), sent.topic, sent.key,
        )  # fmt: skip
        self.returned([sent], [rows[0][0]])

    async def publish(self):
        sent = self.new()
        payload = json.dumps(self.content(sent))
        rows = await self.session.execute(
            "SELECT herald.publish($1, $2::jsonb)", sent.topic, payload
        )
        self.returned([sent], [rows[0][0]])

    async def batch(self):
        sent = self.several()
        messages = [
            {"sender": self.name, "topic": m.topic, "content": self.content(m)} for m in sent
        ]
        rows = await self.session.execute(
            "SELECT string_agg(id::text, ' ') FROM herald.send_batch($1::jsonb) AS id",
            json.dumps(messages),
        )
        self.returned(sent, rows[0][0].split())

    async def payloads(self):
        topic = self.random.choice(TOPICS)
        sent = self.several(topic)
        rows = await self.session.execute(
            "SELECT string_agg(id::text, ' ') FROM herald.publish_batch($1,"
            " ARRAY(SELECT value FROM jsonb_array_elements($2::jsonb))) AS id",
            topic, json.dumps([self.content(m) for m in sent]),
        )  # fmt: skip
        self.returned(sent, rows[0][0].split())

    async def insert(self):
        sent = self.several()
        rows = await self.session.execute(
            "INSERT INTO herald.message (topic, content) SELECT value->>0, value->>1"
            " FROM jsonb_array_elements($1::jsonb) RETURNING id",
            json.dumps([[m.topic, self.content(m)] for m in sent]),
        )
        self.returned(sent, [row[0] for row in rows])

    async def copy(self, error=None):
        sent = self.several()
        await self.session.copy(
            "COPY herald.message (topic, content) FROM STDIN",
            [f"{m.topic}\t{self.content(m)}" for m in sent],
            last=self.copy_ends,
            error=error,
        )

    def copy_ends(self):
        # Without BEGIN this is what commits.
        if self.current.commit_sent is not None:
            self.current.commit_sent = self.stage.now()

    @staticmethod
    def returned(sent, ids):
        assert len(sent) == len(ids), f"{len(ids)} ids for {len(sent)} messages"
        for message, id in zip(sent, ids):
            message.id = id

    async def bad_batch(self):
        messages = [{"topic": m.topic, "content": m.label} for m in self.several()]
        messages.append({"topic": "no [name]", "content": "x"})
        await self.session.execute(
            "SELECT count(*) FROM herald.send_batch($1::jsonb)", json.dumps(messages)
        )

    async def bad_insert(self):
        rows = [[m.topic, m.label] for m in self.several()] + [["herald", "x"]]
        await self.session.execute(
            "INSERT INTO herald.message (topic, content) SELECT value->>0, value->>1"
            " FROM jsonb_array_elements($1::jsonb)",
            json.dumps(rows),
        )

    async def bad_copy(self):
        await self.copy(error="given up")
