"""Retention against a model: random rules, sends, trims and drops, with a clock that the test sets.

After each step the model says of every message whether it may be gone and whether it may still be
there; the counters must be those of the messages that are, and a reader is told of a gap if and
only if it lost something. Payloads of messages that are there can be read, and after each
maintenance the others take no more room on disk than what is there, and a little."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from herald import Cluster

STEPS = 40
TOPICS = ["a:1", "a:2", "a:long", "b", "c:x"]
RULES = ["*", "a:*", "a:?", "a:1", "b", "*x"]


@dataclass
class Message:
    pos: int
    topic: str
    size: int
    payload: object = None  # its id
    noted: datetime | None = None  # by the test's clock, when it was known to be readable


def specific(rule, topic):
    """The order of rules that match: the topic itself, most letters, fewest *."""
    letters = len(rule.replace("*", "").replace("?", ""))
    return (rule != topic, -letters, rule.count("*"), rule)


class Model:
    def __init__(self, connection, seed):
        self.random = random.Random(seed)
        self.connection = connection
        self.now = datetime.now(timezone.utc) + timedelta(days=1)
        self.kept = {topic: [] for topic in TOPICS}
        self.lost = {topic: [] for topic in TOPICS}  # positions
        self.rules = {}  # pattern -> (age, messages, bytes)
        self.contents = {}  # of payloads, by id

    def ask(self, sql, *parameters):
        return self.connection.execute(sql, parameters).fetchall()

    def rule(self, topic):
        matching = self.ask("SELECT r FROM unnest(%s::text[]) r WHERE herald.matches(r, %s)",
                            list(self.rules), topic)  # fmt: skip
        best = min((row[0] for row in matching), key=lambda r: specific(r, topic), default=None)
        return best, self.rules.get(best, (None, None, None))

    # Steps

    def send(self):
        topic = self.random.choice(TOPICS)
        for _ in range(self.random.choice((1, 3, 20))):
            size = self.random.choice((1, 10, 100))
            self.ask("SELECT herald.send_message(NULL, NULL, %s, topic => %s)", "x" * size, topic)
        self.note_sent(topic)

    def send_payload(self):
        """A new one, or one that came in a message that is there."""
        topic = self.random.choice(TOPICS)
        for _ in range(self.random.choice((1, 5))):
            there = [m.payload for messages in self.kept.values() for m in messages if m.payload]
            if there and self.random.random() < 0.2:
                payload = self.random.choice(there)
            else:
                content = self.random.randbytes(self.random.choice((20, 5_000, 50_000)))
                how = self.random.choice(("none", "gzip", "zstd"))
                ((payload,),) = self.ask(
                    "SELECT herald.put_payload(%s, compression => %s)", content, how
                )
                self.contents[payload] = content
            self.ask("SELECT herald.send_payload(%s, %s)", payload, topic)
        self.note_sent(topic)

    def note_sent(self, topic):
        known = {message.pos for message in self.kept[topic]} | set(self.lost[topic])
        self.kept[topic] += [
            Message(pos, topic, size, payload)
            for pos, size, payload in self.ask(
                "SELECT pos, herald.content_bytes(content, payload), payload FROM herald.message"
                " WHERE topic = %s ORDER BY pos", topic)
            if pos not in known
        ]  # fmt: skip

    def set_rule(self):
        pattern = self.random.choice(RULES)
        age = self.random.choice((None, None, timedelta(minutes=1), timedelta(hours=2)))
        messages = self.random.choice((None, None, 1, 10))
        size = self.random.choice((None, None, 50, 500, 100_000))
        self.rules[pattern] = (age, messages, size)
        self.ask("SELECT herald.set_retention(%s, %s, %s, %s)", pattern, age, messages, size)

    def reset_rule(self):
        pattern = self.random.choice(RULES)
        (was,) = self.ask("SELECT herald.reset_retention(%s)", pattern)[0]
        assert was == (self.rules.pop(pattern, None) is not None)

    def pass_time(self):
        self.now += self.random.choice((1, 30, 600, 5000)) * timedelta(seconds=1)

    def start_segment(self):
        self.ask("SELECT herald.start_segment()")

    def drop(self):
        topic = self.random.choice([topic for topic in TOPICS if self.kept[topic]] or [None])
        if topic:
            self.ask("SELECT herald.drop_topic(%s)", topic)
            self.let_go(topic, len(self.kept[topic]))

    def trim(self):
        pattern = self.random.choice(RULES)
        everything = sorted(m.pos for messages in self.kept.values() for m in messages)
        before = self.random.choice([0, *everything, 2**52])
        concerned = [t for (t,) in self.ask(
            "SELECT t FROM unnest(%s::text[]) t WHERE herald.matches(%s, t)", TOPICS, pattern)]  # fmt: skip
        gone = {t: sum(m.pos < before for m in self.kept[t]) for t in concerned}
        (trimmed,) = self.ask("SELECT herald.trim(%s, %s::bigint)", pattern, before)[0]
        assert trimmed == sum(gone.values())
        for topic, count in gone.items():
            self.let_go(topic, count)

    def maintain(self):
        """Segments may begin, and those that hold nothing go."""
        age = self.random.choice(("1s", "1h"))
        self.ask("SELECT set_config('herald.segment_age', %s, false)", age)
        for _ in range(2):  # what the first one closes is closed when it has ended
            self.ask("SELECT herald.maintain_at(%s)", self.now)
        assert self.ask("SELECT * FROM herald.removable_segments()") == []
        (noted_to,) = self.ask("SELECT max(pos) FROM herald.mark")[0]  # at most once a second
        for topic in TOPICS:
            for message in self.kept[topic]:
                if message.noted is None and message.pos <= (noted_to or 0):
                    message.noted = self.now
            there = {pos for (pos,) in self.ask(
                "SELECT pos FROM herald.messages WHERE topic = %s", topic)}  # fmt: skip
            count = sum(message.pos not in there for message in self.kept[topic])
            self.check_rule(topic, count)
            self.let_go(topic, count)
        self.check_disk()

    def let_go(self, topic, count):
        self.lost[topic] += [message.pos for message in self.kept[topic][:count]]
        del self.kept[topic][:count]

    # Checks

    def check_rule(self, topic, count):
        """The first `count` messages have gone: may they, and must no more?"""
        pattern, (age, most, size) = self.rule(topic)
        messages = self.kept[topic]

        def must(n):
            """Whether message n is beyond a limit of number or bytes."""
            after = messages[n:]
            return (most is not None and len(after) > most) or (
                size is not None and sum(m.size for m in after) > size
            )

        def old(message, margin=timedelta(0)):
            noted = message.noted
            return None not in (age, noted) and self.now - noted >= age + margin

        if count:
            last = messages[count - 1]
            assert must(count - 1) or old(last), f"{last} has gone by {pattern} {self.rules}"
        if count < len(messages):
            first = messages[count]
            assert not must(count), f"{first} is beyond {pattern} {self.rules[pattern]}"
            if pattern != "*":  # which lets go of whole segments
                # Old moments are known to a tenth of their age, see mark_time.
                margin = (self.now - (first.noted or self.now)) / 10
                assert not old(first, margin), f"{first} is too old for {pattern} {self.rules}"

    def check_disk(self):
        """Of each table of payloads that none are begun in at least 7/16 is needed, or it is small."""
        needed = {m.payload for messages in self.kept.values() for m in messages if m.payload}
        tables = self.ask("SELECT number, held_by, rewriting, disk_bytes FROM herald.payload_segments")
        for number, held_by, rewriting, disk_bytes in tables:
            if held_by == "open":
                continue
            assert not rewriting, f"payload_{number} is not rewritten yet"
            rows = self.ask("SELECT id FROM herald.payloads WHERE segment = %s", number)
            there = sum(len(self.contents[payload]) for (payload,) in rows if payload in needed)
            most = max(there, 28_000) * 16 / 7 + 60_000  # the room of rows, and of pages that are begun
            assert disk_bytes <= most, f"payload_{number} has {disk_bytes} bytes, {there} are needed"

    def check_payloads(self):
        for topic in TOPICS:
            for message in self.kept[topic]:
                if message.payload:
                    ((content,),) = self.ask("SELECT herald.payload_read(%s)", message.payload)
                    assert content == self.contents[message.payload], f"payload of {message}"

    def check(self):
        self.check_payloads()
        for topic in TOPICS:
            kept = self.kept[topic]
            counted = self.ask(
                "SELECT messages, bytes, first_pos, last_pos FROM herald.topics WHERE name = %s",
                topic,
            )
            expected = (
                (len(kept), sum(m.size for m in kept), kept[0].pos, kept[-1].pos) if kept else None
            )
            assert counted == ([expected] if expected else []), topic
            read = [pos for (pos,) in self.ask("SELECT pos FROM herald.read(%s, 0, 10000)", topic)]
            assert read == [m.pos for m in kept], topic
            after = self.random.choice([0, *self.lost[topic], *(m.pos for m in kept)])
            ((told, _),) = self.ask("SELECT * FROM herald.gap(%s, %s)", topic, after)
            lost = max(self.lost[topic], default=0)
            assert told == (lost if lost > after else None), f"{topic} after {after}"

    STEPS = {send: 10, send_payload: 5, set_rule: 3, reset_rule: 2, pass_time: 6, maintain: 8, trim: 2, drop: 1,
             start_segment: 1}  # fmt: skip

    def step(self):
        (step,) = self.random.choices(list(self.STEPS), weights=self.STEPS.values())
        step(self)
        self.check()


@pytest.fixture(scope="module")
def quiet_cluster(tier):
    """Where the test alone says what time it is."""
    with Cluster("retention", {"herald.maintain": "off"} if tier == "engine" else {}) as cluster:
        yield cluster


@pytest.mark.tier("engine", "plain")
@pytest.mark.parametrize("seeds", [range(1, 26), range(26, 51)])
def test_what_is_kept_is_what_the_rules_say(quiet_cluster, seeds):
    for seed in seeds:
        database = quiet_cluster.create_database()
        with quiet_cluster.connect(database) as connection:
            connection.execute("SET herald.segment_size = '1MB'")
            model = Model(connection, seed)
            for number in range(STEPS):
                try:
                    model.step()
                except AssertionError as failure:
                    raise AssertionError(f"seed {seed}, step {number}: {failure}") from None
        quiet_cluster.drop_database(database)


@pytest.mark.tier("engine", "plain")
def test_a_reader_who_resumes_is_told_of_what_is_gone(cluster, database):
    with cluster.connect(database) as connection:
        notices = []
        connection.add_notice_handler(lambda n: notices.append((n.sqlstate, n.message_primary)))
        for text in "abc":
            connection.execute("SELECT herald.send_message(NULL, NULL, %s, topic => 't')", [text])
        read = "SELECT pos, content FROM herald.read(%s, %s)"
        (first, _), _, (last, _) = connection.execute(read, ["t", 0]).fetchall()
        connection.execute("SELECT herald.trim('t', %s)", [last])
        for topics, after, told in (
            ("t", first, True), ("?", first, True), ("t", last - 1, False), ("t", last, False),
            ("t", 0, False), ("other", first, False),
        ):  # fmt: skip
            notices.clear()
            rows = connection.execute(read, [topics, after]).fetchall()
            assert [content for _, content in rows] == (
                ["c"] if topics != "other" and after < last else []
            )
            assert [state for state, _ in notices] == ["01R01"] * told
            assert not told or f"above position {first}" in notices[0][1]
