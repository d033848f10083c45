"""Properties of the bus, each checked with kCases generated cases; the seed is printed.

`HERALD_SEED=… test/run e2e` repeats a run.
"""

import asyncio
import json
import random
import threading

import pytest

from client import Client, Reader

kCases = 100

ALPHABET = [*"aZ0 \"\\/'\n\t\x01\x1f\x7fü€\u2028😀", "<b>", "%s"]
TYPES = ["request", "response", "notification", "command", "something else"]


class Generator:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def text(self, longest=60):
        return "".join(self.rng.choices(ALPHABET, k=self.rng.randint(0, longest)))

    def json(self, depth=3):
        kinds = ["text", "int", "float", "bool", "null"] + (["list", "dict"] if depth else [])
        kind = self.rng.choice(kinds)
        if kind == "list":
            return [self.json(depth - 1) for _ in range(self.rng.randint(0, 3))]
        if kind == "dict":
            return {self.text(6): self.json(depth - 1) for _ in range(self.rng.randint(0, 3))}
        return {
            "text": self.text(20), "int": self.rng.randint(-(2**53), 2**53), "null": None,
            "float": self.rng.randint(-1000, 1000) / 8, "bool": self.rng.random() < 0.5,
        }[kind]  # fmt: skip

    def message(self, topic):
        """Arguments of send_message, each optional one sometimes."""
        message = {"topic": topic, "content": self.text(self.rng.choice((20, 200, 9000)))}
        optional = {
            "sender": lambda: self.text(20) or "s", "recipient": lambda: self.text(20) or "r",
            "message_type": lambda: self.rng.choice(TYPES), "conversation": lambda: self.text(20) or "c",
            "metadata": lambda: {self.text(5): self.json() for _ in range(self.rng.randint(0, 3))},
            "priority": lambda: self.rng.randint(0, 9), "ordering_key": lambda: self.text(10) or "k",
            "ttl": lambda: self.rng.choice(["1 hour", "10 days", "00:10:00.5"]),
        }  # fmt: skip
        for name, make in optional.items():
            if self.rng.random() < 0.4:
                message[name] = make()
        return message


@pytest.fixture
def generate(seed):
    return Generator(seed)


def send_by_sql(stage, message):
    metadata = {"metadata": json.dumps(message["metadata"])} if "metadata" in message else {}
    return stage.send(**message | metadata)


async def send(stage, client, generate, message):
    """By SQL or, if there is a client, sometimes by WebSocket; gives the id."""
    if client is None or generate.rng.random() < 0.5:
        return send_by_sql(stage, message)
    ok = await client.ask(op="send", **message)
    assert ok["op"] == "ok", ok
    return ok["message"]


def assert_stored(stage, identifier, message):
    rows = stage.rows(
        "SELECT topic, content, sender, recipient, message_type, conversation, metadata, priority,"
        " ordering_key, expires_at IS NOT NULL FROM herald.messages WHERE id = %s",
        identifier,
    )
    expected = (
        message["topic"], message["content"], message.get("sender"), message.get("recipient"),
        message.get("message_type", "notification"), message.get("conversation"),
        message.get("metadata"), message.get("priority", 0), message.get("ordering_key"),
        "ttl" in message,
    )  # fmt: skip
    assert rows == [expected]


@pytest.mark.property("a message is stored whether or not a WebSocket is connected")
async def test_property_stored_with_or_without_a_websocket(stage, generate):
    client = None
    for _ in range(kCases):
        if generate.rng.random() < 0.3:
            if client:
                await client.close()
                client = None
            else:
                client = await Client(stage.notifier).__aenter__()
        message = generate.message(stage.topic("property"))
        if client and generate.rng.random() < 0.5:
            await client.subscribe(message["topic"])
        assert_stored(stage, await send(stage, client, generate, message), message)
    if client:
        await client.close()


@pytest.mark.property("a message is readable immediately after its commit")
async def test_property_readable_immediately_after_commit(stage, generate):
    send_text = "SELECT herald.send_message(NULL, NULL, %s, topic => %s)::text"
    read_ids = "SELECT id::text FROM herald.read(%s, %s)"
    with stage.connect(autocommit=False) as writer, stage.connect() as reader:
        for _ in range(kCases):
            topic, before = stage.topic("property"), stage.horizon()
            ids = [
                writer.execute(send_text, (generate.text(), topic)).fetchone()[0]
                for _ in range(generate.rng.randint(1, 4))
            ]
            unseen = reader.execute(read_ids, (topic, before)).fetchall()
            assert unseen == [], "seen before the commit"
            commits = generate.rng.random() < 0.8
            writer.commit() if commits else writer.rollback()
            read = reader.execute(read_ids, (topic, before)).fetchall()
            assert [row[0] for row in read] == (ids if commits else [])
            if commits:
                answer = stage.json(f"/topics/{topic}/messages?after={before}")
                assert [m["id"] for m in answer["messages"]] == ids


@pytest.mark.property("the same set of messages is kept with and without a WebSocket")
async def test_property_same_set_with_and_without_websocket(stage, generate):
    kept = (
        "SELECT content, sender, recipient, message_type, conversation, metadata, priority,"
        " ordering_key, is_json FROM herald.read(%s)"
    )
    async with Client(stage.notifier) as client:
        for _ in range(kCases):
            heard, unheard = stage.topic("property"), stage.topic("property")
            await client.subscribe(heard)
            messages = [generate.message(None) for _ in range(generate.rng.randint(1, 4))]
            ids = []
            for message in messages:
                ids.append(send_by_sql(stage, message | {"topic": heard}))
                send_by_sql(stage, message | {"topic": unheard})
            sets = [stage.rows(kept, topic) for topic in (heard, unheard)]
            assert sets[0] == sets[1] and len(sets[0]) == len(messages)
            assert [m["id"] for m in await client.messages(len(messages))] == ids
            await client.ask(op="unsub", topic=heard)


@pytest.mark.property("messages come in chronological order, everywhere")
async def test_property_chronological_order(stage, generate):
    publish = "SELECT herald.publish(%s, '1', conversation => %s)::text"
    writers = [stage.connect(autocommit=False) for _ in range(3)]
    try:
        async with Client(stage.notifier) as client:
            for _ in range(kCases):
                topic = stage.topic("property")
                await client.subscribe(topic)
                committed = []
                for writer in generate.rng.choices(writers, k=generate.rng.randint(2, 6)):
                    for _ in range(generate.rng.randint(1, 2)):
                        committed.append(writer.execute(publish, (topic, topic)).fetchone()[0])
                    writer.commit()
                read = stage.rows("SELECT id::text, pos, at FROM herald.read(%s)", topic)
                assert [row[0] for row in read] == committed
                assert [row[1] for row in read] == sorted({row[1] for row in read})
                assert [row[2] for row in read] == sorted(row[2] for row in read)
                for function in ("tail(%s, 100)", "conversation(%s)"):
                    again = stage.rows(f"SELECT id::text, pos, at FROM herald.{function}", topic)
                    assert again == read
                assert [m["id"] for m in await client.messages(len(committed))] == committed
                await client.ask(op="unsub", topic=topic)
    finally:
        for writer in writers:
            writer.close()


@pytest.mark.property("a message is stored and pushed when a client is connected")
async def test_property_stored_and_pushed_when_connected(stage, generate):
    async with Client(stage.notifier) as listener, Client(stage.notifier) as sender:
        base = stage.topic("property")
        await listener.subscribe(f"{base}*")
        for n in range(kCases):
            message = generate.message(f"{base}:{n % 7}")
            identifier = await send(stage, sender, generate, message)
            pushed = await listener.message()
            assert pushed["id"] == identifier and pushed["content"] == message["content"]
            assert_stored(stage, identifier, message)


@pytest.mark.property("a message has the same structure from the database and from the WebSocket")
async def test_property_same_structure_from_database_and_websocket(stage, generate):
    async with Client(stage.notifier) as client:
        topic = stage.topic("property")
        await client.subscribe(topic)
        for _ in range(kCases):
            if generate.rng.random() < 0.5:
                identifier = stage.publish(topic, generate.json())
            else:
                identifier = send_by_sql(stage, generate.message(topic))
            pushed = await client.message()
            assert pushed["id"] == identifier
            assert pushed.raw == stage.envelope(identifier)
            status, body = stage.notifier.http(f"/messages/{identifier}")
            assert status == 200 and body.decode() == pushed.raw


@pytest.mark.property("a conversation is retrieved completely and in order")
async def test_property_complete_retrieval_of_a_conversation(stage, generate):
    async with Client(stage.notifier) as client:
        for _ in range(kCases):
            names = [stage.topic("conversation") for _ in range(3)]
            told = {name: [] for name in names}
            for _ in range(generate.rng.randint(2, 10)):
                name = generate.rng.choice(names)
                if told[name] and generate.rng.random() < 0.3:
                    original = generate.rng.choice(told[name])
                    identifier = str(stage.value("SELECT herald.reply(%s, 'r')", original))
                else:
                    message = generate.message(stage.topic("property")) | {
                        "conversation": name, "sender": "s", "recipient": "r",
                    }  # fmt: skip
                    message.pop("ttl", None)
                    identifier = await send(stage, client, generate, message)
                told[name].append(identifier)
            for name, ids in told.items():
                rows = stage.rows("SELECT id::text FROM herald.conversation(%s)", name)
                assert [row[0] for row in rows] == ids


@pytest.mark.property("duplicates are prevented by the idempotency key")
async def test_property_duplicates_are_prevented(stage, generate):
    async with Client(stage.notifier) as client:
        topic = stage.topic("property")
        await client.subscribe(topic)
        for n in range(kCases):
            key = f"{topic}:{n}"
            message = {"topic": topic, "content": key, "idempotency_key": key}
            repeats = generate.rng.randint(2, 4)
            if generate.rng.random() < 0.5:
                # All at once, by connections of the notifier's pool and one of ours.
                for attempt in range(repeats):
                    await client.write({"op": "send", "id": attempt, **message})
                ids = {send_by_sql(stage, message)}
                ids |= {(await client.reply(attempt))["message"] for attempt in range(repeats)}
            else:
                ids = {await send(stage, client, generate, message) for _ in range(repeats)}
            assert len(ids) == 1
            pushed = await client.message()
            assert {pushed["id"]} == ids and pushed["content"] == key
        assert await client.until(stage.publish(topic, "fence")) == []
        assert len(stage.positions(topic)) == kCases + 1


@pytest.mark.property("a failing push never fails a send")
async def test_property_a_failing_push_never_fails_a_send(stage, generate, own_notifier):
    """The notifier is killed again and again while messages are sent: none is missing."""
    notifier = own_notifier()
    topic = stage.topic("property")
    reader = Reader(notifier, topic)
    kills = 0
    sent = []
    enough = threading.Event()
    failures = []

    def keep_sending():
        try:
            while not enough.is_set() or len(sent) < kCases:
                sent.append(send_by_sql(stage, generate.message(topic) | {"topic": topic}))
        except Exception as error:  # shown by the assertion below
            failures.append(error)

    sender = threading.Thread(target=keep_sending)
    has_all = lambda r: r.seen and r.seen[-1]["content"] == "the end"  # noqa: E731
    following = asyncio.create_task(reader.follow(has_all))
    sender.start()
    try:
        for _ in range(8):
            await asyncio.to_thread(notifier.kill)
            kills += 1
            await asyncio.to_thread(notifier.start)
    finally:
        enough.set()
        await asyncio.to_thread(sender.join)
    assert failures == [] and len(sent) >= kCases and kills == 8
    sent.append(stage.publish(topic, "the end"))
    await asyncio.wait_for(following, 60)
    assert [m["id"] for m in reader.seen] == sent
    stored = stage.rows("SELECT id::text FROM herald.messages WHERE topic = %s ORDER BY pos", topic)
    assert [row[0] for row in stored] == sent
