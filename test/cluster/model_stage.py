"""The stage of the model: a database with all its senders and readers, and what they tell each
other. One run after another takes place on it; after a failure it is of no further use.

One thread drives everything by asyncio, so nothing here needs a lock but the administrator's
session, which several tasks use. All waits are for conditions, with deadlines.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
import traceback

from model_checker import HIGHEST, check
from model_history import History, Sent, Stored, Transaction
from model_readers import BellReader, Feed, Listener, Pager, PassingListener, SnapshotPager, Waiter
from model_senders import Sender
from model_session import ConnectionLost, Session, SqlError
from workload import COMMITTED, TOPICS

SENDERS = 32
TRANSACTIONS = 6  # of each sender in a run
PATIENCE = 60.0  # seconds for any one thing to happen
LONGEST = 180.0  # seconds for a run
ENDING = 20.0  # seconds for the readers to get the last message
# In pg_locks; see extension/locks.h.
IDEMPOTENCY_LOCK = "(locktype = 'advisory' AND objsubid = 8)"
PAUSE = 0.01  # seconds between two looks of the watcher, unless something happens


class ModelFailure(AssertionError):
    pass


class Events:
    """Conditions on what the sessions do, looked at whenever one of them tells of something. Who
    waits goes on if the condition held then; it may not hold any more."""

    def __init__(self):
        self._waits = []  # (condition, future)

    def tell(self):
        for wait in [wait for wait in self._waits if wait[0]()]:
            self._waits.remove(wait)
            _wake(wait[1], True)

    async def something(self, condition, patience):
        """Until the condition holds, for `patience` seconds at the longest. Whether it held."""
        if condition():
            return True
        loop = asyncio.get_running_loop()
        wait = (condition, loop.create_future())
        self._waits.append(wait)
        timer = loop.call_later(patience, _wake, wait[1], False)
        try:
            return await wait[1]
        finally:
            timer.cancel()
            if wait in self._waits:
                self._waits.remove(wait)

    async def until(self, condition, what, patience=PATIENCE):
        if not await self.something(condition, patience):
            raise TimeoutError(f"waited {patience} s for {what}\n{self.scene()}")


class Stage(Events):
    def __init__(self, cluster, database, senders=SENDERS):
        super().__init__()
        self.engine = cluster.engine
        self.conninfo = cluster.conninfo(database)
        self.senders = [Sender(number, self) for number in range(senders)]
        self.readers = [
            Pager("reader of all", "*", self),
            Pager("reader of a topic", "room:1", self),
            SnapshotPager("reader of all with an old snapshot", "*", self),
            SnapshotPager("reader of a pattern with an old snapshot", "room:*", self),
            Feed("feed", None, self),
            Feed("feed of a pattern", "agent:*", self),
            BellReader("doorbell", "*", self),
            Listener("listener", ["room:*", "agent:*", "broadcast"], self),
            Listener("listener to some", ["room:?", "broadcast", "räume:*"], self),
            # Most of its topics nobody else listens to.
            PassingListener(
                "listener that comes and goes", ["workspace:*", "a topic", "room:1"], self
            ),
        ]
        if self.engine:
            self.readers.append(Waiter("wait_for", "*", self))
        self.run_number = 0
        self.start = time.monotonic()
        self.history = None
        self.admin = None
        self._asking = asyncio.Lock()
        self._strange = []  # what went wrong outside of any task
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self._strange.append(str(context))
        )

    async def run(self, seed, transactions=TRANSACTIONS):
        """One run. Returns a line on it; raises ModelFailure."""
        self.start = time.monotonic()
        self.run_number += 1
        self.commits = self.pages = self.horizon = 0
        self.departed = set()  # processes that may still be at it
        self.waits_seen = set()
        self.ends = None  # the last position of each topic, when all is sent
        self.ending = False  # the last messages are to come: nobody hangs up any more
        self.over = False
        await self.connect_readers()
        kills, terminations = self.plan(seed, transactions)
        self.base = int((await self.ask("SELECT herald.horizon()"))[0])
        self.history = History(base=self.base, durable_numbers=self.engine or not kills)
        late_before = await self.late_transactions()
        try:
            broken = await self.play(seed, transactions, kills, terminations)
        except (ExceptionGroup, TimeoutError, SqlError) as failure:
            raise ModelFailure(_tell(failure)) from None
        broken += self._strange + check(self.history)
        if self.engine:  # without it senders do wait for each other
            broken += sorted(f"a session waits: {wait}" for wait in self.waits_seen)
        if broken:
            raise ModelFailure("\n".join(broken))
        late = await self.late_transactions() - late_before
        return self.summary(max(late, 0))  # a crash sets it back

    def plan(self, seed, transactions):
        """Whose backends are killed in which of their transactions, and after how many commits the
        dispatcher is terminated."""
        dice = random.Random(f"{seed} plan")
        kills, terminations = {}, []
        if seed % 25 == 0:
            for _ in range(dice.randint(1, 2)):
                number = dice.randrange(len(self.senders))
                kills.setdefault(number, set()).add(dice.randrange(transactions))
        if seed % 10 == 5 and self.engine:
            most = len(self.senders) * transactions // 2
            terminations = sorted(dice.randint(1, most) for _ in range(2))
        return kills, terminations

    async def connect_readers(self):
        for reader in self.readers:
            if not reader.connected:
                await reader.connect()

    async def play(self, seed, transactions, kills, terminations):
        """All that happens in a run. What readers did not get in time is returned."""
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(reader.run(seed)) for reader in self.readers]
            group.create_task(self.watch())
            group.create_task(self.terminate_dispatcher(terminations))
            group.create_task(self.until(lambda: self.over, "the end of the run", LONGEST))
            async with asyncio.TaskGroup() as sending:
                for sender in self.senders:
                    sender.state = "active"
                    kill_in = kills.get(sender.number, ())
                    sending.create_task(sender.run(seed, transactions, kill_in))
            await self.end_of_sending()
            _, late = await asyncio.wait(readers, timeout=ENDING)
            for task in late:
                task.cancel()
            self.over = True
            self.tell()
        if late:
            return [
                f"{reader.name} has come to {reader.after}, not to {self.target(reader.covered)};"
                f" {reader.session}"
                for reader, task in zip(self.readers, readers)
                if task in late
            ]
        return await self.aftermath()

    async def end_of_sending(self):
        """The last message of each topic, when nobody is left who might still commit; then the log
        is what it will be."""
        self.ending = True
        await self.poll(self.departed_are_gone, "the end of lost backends")
        await self.poll(self.readers_are_connected, "the readers' connections")
        end = Transaction("end", self.now(), outcome=COMMITTED)
        end.messages = [
            Sent(f"{self.run_number}.end.{number}", topic) for number, topic in enumerate(TOPICS)
        ]
        labels = "{" + ",".join(sent.label for sent in end.messages) + "}"
        topics = "{" + ",".join(f'"{sent.topic}"' for sent in end.messages) + "}"
        end.commit_sent = self.now()
        await self.ask(
            "SELECT herald.send_message(NULL, NULL, label, topic => topic)"
            " FROM unnest($1::text[], $2::text[]) AS x (label, topic)",
            labels, topics,
        )  # fmt: skip
        end.ended = self.now()
        self.enter(end)
        rows = await self.admin.execute(
            "SELECT pos, id, topic, split_part(btrim(content, '\"'), ' ', 1),"
            " herald.envelope(m, 7999) FROM herald.messages m WHERE pos > $1 ORDER BY pos",
            self.base,
        )
        self.history.log = [Stored(int(row[0]), *row[1:]) for row in rows]
        self.ends = {row.topic: row.pos for row in self.history.log}
        for reader in self.readers:  # some have it all and wait for more
            if reader.session:
                reader.session.wake()

    async def aftermath(self):
        """What must be so when all is quiet."""
        last = self.history.log[-1].pos
        row = await self.ask(
            "SELECT count(*), max(pos), herald.horizon() FROM herald.message WHERE pos > $1",
            self.base,
        )
        broken = []
        count, highest, horizon = map(int, row)
        if (count, highest) != (len(self.history.log), last):
            broken.append(f"the log has changed: {count} up to {highest}")
        if horizon < last:
            broken.append(f"the horizon is {horizon}, the last message has {last}")
        if self.engine:
            await self.poll(self.engine_is_quiet, "a quiet engine")
        return broken

    async def departed_are_gone(self):
        sessions = [sender.session for sender in self.senders if sender.session]
        present = {session.pid for session in sessions if not session.closed}
        pids = "{" + ",".join(map(str, self.departed - present)) + "}"
        row = await self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids
        )
        return row == ["0"]

    async def readers_are_connected(self):
        return all(reader.connected for reader in self.readers)

    async def engine_is_quiet(self):
        return ["0", "0", "0"] == await self.ask(
            "SELECT senders, dispatcher_lag, (SELECT count(*) FROM herald.senders)"
            " FROM herald.engine"
        )

    async def late_transactions(self):
        if not self.engine:
            return 0
        return int((await self.ask("SELECT restamped_transactions FROM herald.engine"))[0])

    # What goes on beside the senders

    async def watch(self):
        """The horizon, and who waits for a lock, by the lock table: what pg_stat_activity tells of
        a session is from several moments. To be excused is who waits for a sender with the same
        idempotency key, or extends a table, which is a short wait for nobody's transaction; and the
        keeper, as long as nobody waits behind it."""
        session = None
        while not self.over:
            try:
                session = session or await self.open_session()
                rows = await session.execute(
                    "SELECT herald.horizon(), (SELECT string_agg(l::text || ' in ' ||"
                    " left(query, 120), '; ') FROM pg_locks l JOIN pg_stat_activity USING (pid)"
                    f" WHERE NOT granted AND locktype <> 'extend' AND NOT {IDEMPOTENCY_LOCK}"
                    " AND datname = current_database() AND backend_type <> 'herald keeper')"
                )
            except ConnectionLost:
                session = None
                continue
            self.horizon = int(rows[0][0])
            self.history.horizons.append(self.horizon)
            self.saw(self.horizon, "herald.horizon()")
            if rows[0][1]:
                self.waits_seen.add(rows[0][1])
            self.tell()
            goal = self.commits + 3
            await self.something(lambda: self.over or self.commits >= goal, PAUSE)
        if session:
            session.close()

    async def terminate_dispatcher(self, marks):
        for mark in marks:
            await self.until(lambda: self.over or self.commits >= mark, f"{mark} commits")
            await self.ask("SELECT pg_terminate_backend(dispatcher_pid) FROM herald.engine")

    async def attack(self, kind, session):
        """Something happens to a session's backend."""
        self.departed.add(session.pid)
        if kind == "kill":
            with contextlib.suppress(ProcessLookupError):  # another kill has ended the server
                os.kill(session.pid, signal.SIGKILL)
            await self.poll(lambda: _value(session.closed), "the end of a killed backend")
        elif kind == "terminate":
            await self.ask("SELECT pg_terminate_backend($1)", session.pid)
        else:
            await self.ask("SELECT pg_cancel_backend($1)", session.pid)

    # What sessions are told and tell

    def now(self):
        return time.monotonic() - self.start

    def enter(self, transaction):
        self.history.transactions.append(transaction)
        if transaction.outcome == COMMITTED:
            self.commits += 1
        self.tell()

    def saw(self, position, who):
        self.history.sightings.append((self.now(), position, who))

    def page_was_read(self):
        self.pages += 1
        self.tell()

    def active(self):
        """Whether any sender goes on by itself."""
        return any(sender.state == "active" for sender in self.senders)

    def target(self, topics):
        """The last position of these topics; before all is sent, one that nobody reaches."""
        return HIGHEST if self.ends is None else max(self.ends[topic] for topic in topics)

    # Connections

    async def open_session(self):
        """As soon as the server takes connections."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await Session.open(self.conninfo)
            except ConnectionLost as lost:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no connection: {lost}") from None
            await asyncio.sleep(0.01)

    async def ask(self, sql, *parameters):
        """The first row, by the administrator's session; again if the server went down."""
        async with self._asking:
            while True:
                try:
                    if self.admin is None:
                        self.admin = await self.open_session()
                    rows = await self.admin.execute(sql, *parameters)
                    return rows[0] if rows else None
                except ConnectionLost:
                    self.admin = None

    async def poll(self, condition, what):
        """Asks again and again."""
        deadline = time.monotonic() + PATIENCE
        while not await condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {PATIENCE} s for {what}\n{self.scene()}")
            await asyncio.sleep(0.003)

    def close(self):
        for holder in (*self.senders, *self.readers):
            if holder.session:
                holder.session.close()
        if self.admin:
            self.admin.close()

    # Words

    def summary(self, late):
        history = self.history
        stored = {row.label: row.pos for row in history.log}
        committed = [t for t in history.transactions if t.outcome == COMMITTED]
        looked = [m for t in committed for m in t.messages if m.seen_at and m.label in stored]
        moved = sum(stored[message.label] != message.seen_at for message in looked)
        unanswered = sum(transaction.ended is None for transaction in committed)
        return (
            f"{len(history.log)} messages, {len(committed)} of {len(history.transactions)}"
            f" transactions committed ({unanswered} unanswered, {late} late), {moved} of"
            f" {len(looked)} moved, {self.pages} pages, {self.now():.2f} s"
        )

    def scene(self):
        """What everybody is doing."""
        return "\n".join(
            f"    {actor.name} {getattr(actor, 'state', '')}: {actor.session}"
            for actor in (*self.senders, *self.readers)
        )


def _wake(future, held):
    if not future.done():
        future.set_result(held)


async def _value(value):
    return value


def _tell(failure):
    if isinstance(failure, ExceptionGroup):
        return "\n".join(_tell(part) for part in failure.exceptions[:3])
    if isinstance(failure, (AssertionError, TimeoutError)):
        return str(failure)
    return "".join(traceback.format_exception(failure)[-4:])
