"""send over WebSocket: every argument, who the sender is, order, refusals, duplicates."""

import asyncio
import json
import uuid

import pytest

from client import Client


async def refused(client, code, **frame):
    reply = await client.ask(**frame)
    assert reply["op"] == "err" and reply["code"] == code, reply
    return reply


async def still_lives(stage, client):
    """The connection works after what the test did to it."""
    topic = stage.topic("alive")
    ok = await client.ask(op="send", topic=topic, content="x")
    assert ok["op"] == "ok", ok
    assert stage.value("SELECT topic FROM herald.message_by_id(%s)", ok["message"]) == topic


async def test_every_argument_of_send_message(stage):
    original = stage.send(sender="b", recipient="a", content="?")
    conversation = stage.topic("conversation")
    async with Client(stage.notifier, user="u", agent="a") as client:
        await client.subscribe("agent:b:inbox")
        ok = await client.ask(
            op="send", sender="somebody", recipient="b", content="text\n", message_type="response",
            metadata={"n": [1, None, "x"]}, conversation=conversation, reply_to=original,
            priority=7, ordering_key="k", ttl="1 hour", workspace="w", idempotency_key=conversation,
        )  # fmt: skip
        assert ok["op"] == "ok"
        uuid.UUID(ok["message"])
        message = await client.message()
    assert message["id"] == ok["message"]
    assert message["topic"] == "agent:b:inbox" and message["type"] == "response"
    assert message["sender"] == "somebody" and message["recipient"] == "b"
    assert message["conversation"] == conversation and message["reply_to"] == original
    assert message["content"] == "text\n" and message["metadata"] == {"n": [1, None, "x"]}
    assert message["priority"] == 7 and message["key"] == "k" and "expires_at" in message
    row = stage.rows(
        "SELECT sender, recipient, content, message_type, metadata, conversation, reply_to::text,"
        " priority, ordering_key, expires_at - at, workspace, idempotency_key"
        " FROM herald.message_by_id(%s)",
        ok["message"],
    )[0]
    assert row[:9] == (
        "somebody", "b", "text\n", "response", {"n": [1, None, "x"]}, conversation, original, 7, "k",
    )  # fmt: skip
    assert row[9].total_seconds() == pytest.approx(3600, abs=5)
    assert row[10:] == ("w", conversation)


@pytest.mark.parametrize(
    ("arguments", "topic"),
    [
        ({"recipient": "b"}, "agent:b:inbox"),
        ({"workspace": "w"}, "workspace:w"),
        ({"recipient": "b", "workspace": "w"}, "agent:b:inbox"),
        ({}, "broadcast"),
        ({"recipient": "b", "topic": "t:1"}, "t:1"),
    ],
)
async def test_where_a_message_goes(stage, arguments, topic):
    async with Client(stage.notifier) as client:
        ok = await client.ask(op="send", content="x", **arguments)
        assert stage.value("SELECT topic FROM herald.message_by_id(%s)", ok["message"]) == topic


@pytest.mark.parametrize(
    ("query", "sender"),
    [({"user": "u", "agent": "a"}, "a"), ({"user": "ü €"}, "ü €"), ({}, None)],
)
async def test_the_sender_is_the_agent_or_else_the_user(stage, query, sender):
    async with Client(stage.notifier, **query) as client:
        ok = await client.ask(op="send", topic=stage.topic(), content="x")
        assert stage.value("SELECT sender FROM herald.message_by_id(%s)", ok["message"]) == sender


@pytest.mark.parametrize(
    "payload",
    [None, True, 0, -1.5, "text", [], {}, [1, [2, {"a": None}]], {"b": 1, "a": {"ü": "😀\u2028\"\\\n"}}],
    ids=repr,
)
async def test_payload_is_published_as_json(stage, payload):
    topic = stage.topic()
    async with Client(stage.notifier, user="u") as client:
        await client.subscribe(topic)
        ok = await client.ask(op="send", topic=topic, payload=payload, priority=2)
        assert ok["op"] == "ok", ok
        message = await client.message()
        assert message["id"] == ok["message"] and message["content"] == payload
        assert message["priority"] == 2 and message["sender"] == "u"
        assert stage.value("SELECT is_json FROM herald.message_by_id(%s)", ok["message"])


async def test_numbers_of_a_payload_keep_every_digit(stage):
    topic = stage.topic()
    number = "12345678901234567890.123456789012345678901234567890"
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        payload = f"[{number}, 9007199254740993]"
        await client.write(f'{{"op":"send","topic":"{topic}","payload":{payload},"id":1}}')
        assert (await client.reply(1))["op"] == "ok"
        assert f'"content":{payload}' in (await client.message()).raw


async def test_a_session_s_sends_are_stored_in_the_order_sent(stage):
    topics = [stage.topic("order") for _ in range(3)]
    async with Client(stage.notifier) as client:
        for topic in topics:
            await client.subscribe(topic)
        for n in range(300):
            await client.write({"op": "send", "topic": topics[n % 3], "payload": n, "id": n})
        replies = [await client.reply(n) for n in range(300)]
        assert all(reply["op"] == "ok" for reply in replies)
        pushed = await client.messages(300)
        assert [m["content"] for m in pushed] == list(range(300))
        assert [m["id"] for m in pushed] == [reply["message"] for reply in replies]
        assert [m["pos"] for m in pushed] == sorted(m["pos"] for m in pushed)


async def test_replies_come_in_the_order_of_the_sends(stage):
    async with Client(stage.notifier) as client:
        topic = stage.topic()
        for n in range(100):
            bad = {"priority": 12} if n % 7 == 3 else {}
            await client.write({"op": "send", "topic": topic, "content": "x", "id": n, **bad})
        frames = [await client.next() for _ in range(100)]
        assert [frame["id"] for frame in frames] == list(range(100))
        assert [frame["op"] == "err" for frame in frames] == [n % 7 == 3 for n in range(100)]


async def test_a_conversation_across_two_clients(stage):
    """A request, its reply by SQL and the reply to that by WebSocket reach both ends."""
    conversation = stage.topic("conversation")
    one, two = stage.topic("pm"), stage.topic("dev")
    async with Client(stage.notifier, agent=one) as pm, Client(stage.notifier, agent=two) as dev:
        await pm.subscribe(f"agent:{one}:inbox")
        await dev.subscribe(f"agent:{two}:inbox")
        asked = await pm.ask(
            op="send", recipient=two, content="?", message_type="request",
            conversation=conversation,
        )  # fmt: skip
        question = await dev.message()
        assert question["id"] == asked["message"] and question["sender"] == one
        answered = str(stage.value("SELECT herald.reply(%s, 'by SQL')", question["id"]))
        answer = await pm.message()
        assert answer["id"] == answered and answer["reply_to"] == question["id"]
        assert answer["type"] == "response" and answer["conversation"] == conversation
        assert answer["sender"] == two and answer["recipient"] == one
        thanks = await pm.ask(
            op="send", recipient=answer["sender"], content="thanks", reply_to=answer["id"],
            conversation=conversation,
        )  # fmt: skip
        assert (await dev.message())["reply_to"] == answer["id"]
        kept = stage.rows("SELECT id::text FROM herald.conversation(%s)", conversation)
        assert [row[0] for row in kept] == [question["id"], answered, thanks["message"]]


async def test_idempotency_key_over_websocket(stage):
    topic, key = stage.topic(), uuid.uuid4().hex
    async with Client(stage.notifier) as one, Client(stage.notifier) as two:
        await one.subscribe(topic)
        message = {"op": "send", "topic": topic, "content": "x", "idempotency_key": key}
        replies = []
        for _ in range(5):
            replies += await asyncio.gather(one.ask(**message), two.ask(**message))
        assert len({reply["message"] for reply in replies}) == 1
        assert (await one.message())["id"] == replies[0]["message"]
        assert await one.until(stage.publish(topic, "fence")) == []
        assert stage.value("SELECT count(*) FROM herald.messages WHERE topic = %s", topic) == 2


@pytest.mark.parametrize(
    ("frame", "sqlstate"),
    [
        ({"topic": "", "content": "x"}, "22023"),
        ({"topic": "a" * 201, "content": "x"}, "22023"),
        ({"topic": "a*", "content": "x"}, "22023"),
        ({"topic": "herald", "content": "x"}, "42939"),
        ({"topic": "herald:x", "content": "x"}, "42939"),
        ({"topic": "t", "content": "x", "priority": 10}, "22023"),
        ({"topic": "t", "content": "x", "priority": -1}, "22023"),
        ({"topic": "t", "content": "x", "ttl": "-1 second"}, "22023"),
        ({"topic": "t", "content": "x", "ttl": "soon"}, "22023"),
        ({"topic": "t", "content": "x", "metadata": [1]}, "22023"),
        ({"topic": "t", "content": "x", "sender": "s" * 201}, "22001"),
        ({"topic": "t", "content": "x", "deliver_at": "soon"}, "22023"),
        ({"topic": "t", "content": "x", "reply_to": "no uuid"}, "22023"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else value,
)
async def test_what_the_database_refuses(stage, frame, sqlstate):
    before = stage.horizon()
    async with Client(stage.notifier) as client:
        reply = await client.ask(op="send", **frame)
        assert reply["op"] == "err" and reply["message"], reply
        if reply["code"] != "invalid":  # refused by the notifier before the database saw it
            assert (reply["code"], reply["sqlstate"]) == ("rejected", sqlstate), reply
        assert stage.rows("SELECT 1 FROM herald.read('*', %s) LIMIT 1", before) == []
        await still_lives(stage, client)


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"op": "send"}, "content"),
        ({"op": "send", "topic": "t"}, "content"),
        ({"op": "send", "topic": "t", "content": None}, "content"),
        ({"op": "send", "topic": "t", "content": 5}, "content"),
        ({"op": "send", "topic": "t", "content": {"a": 1}}, "content"),
        ({"op": "send", "topic": 5, "content": "x"}, "topic"),
        ({"op": "send", "recipient": ["b"], "content": "x"}, "recipient"),
        ({"op": "send", "topic": "t", "content": "x", "priority": "high"}, "priority"),
        ({"op": "send", "topic": "t", "content": "x", "priority": 1.5}, "priority"),
        ({"op": "send", "topic": "t", "content": "x", "metadata": "text"}, "metadata"),
        ({"op": "send", "topic": "t", "content": "x", "idempotency_key": 7}, "idempotency_key"),
        ({"op": "send", "payload": {}}, "topic"),
        ({"op": "send", "topic": "t", "content": "x", "payload": 1}, "payload"),
        ({"op": "send", "topic": "t", "content": "x", "colour": "red"}, "colour"),
        ({"op": "sub"}, "topic"),
        ({"op": "sub", "topic": 5}, "topic"),
        ({"op": "sub", "topic": None}, "topic"),
        ({"op": "sub", "topic": ""}, "topic"),
        ({"op": "sub", "topic": "a" * 201}, "topic"),
        ({"op": "sub", "topic": "a[b]"}, "topic"),
        ({"op": "sub", "topic": "a\\b"}, "topic"),
        ({"op": "sub", "topic": "a\nb"}, "topic"),
        ({"op": "sub", "topic": "t", "after": "1"}, "after"),
        ({"op": "sub", "topic": "t", "after": -1}, "after"),
        ({"op": "sub", "topic": "t", "after": 1.5}, "after"),
        ({"op": "sub", "topic": "t", "after": 2**70}, "after"),
        ({"op": "sub", "topic": "t", "last": 0}, "last"),
        ({"op": "sub", "topic": "t", "last": "3"}, "last"),
        ({"op": "sub", "topic": "t", "last": 10001}, "last"),
        ({"op": "sub", "topic": "t", "last": 1, "after": 1}, "last"),
        ({"op": "unsub"}, "topic"),
        ({"op": "unsub", "topic": {}}, "topic"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else value,
)
async def test_bad_fields_are_named_and_the_connection_lives(stage, frame, field):
    async with Client(stage.notifier) as client:
        reply = await client.ask(**frame)
        assert reply["op"] == "err", reply
        if reply["code"] == "invalid":
            assert reply["field"] == field, reply
        else:  # the database names the field in its own words
            assert reply["code"] == "rejected" and reply["sqlstate"], reply
            assert field in reply["message"]
        await still_lives(stage, client)


async def test_unknown_op(stage):
    async with Client(stage.notifier) as client:
        for frame in ({"op": "dance"}, {"op": ""}, {"op": "ok"}, {"op": "SUB", "topic": "t"}):
            assert "op" in (await refused(client, "unknown_op", **frame))["message"]
        for frame in ({}, {"op": 5}, {"op": None}, {"topic": "t"}):
            reply = await refused(client, "invalid", **frame)
            assert reply["field"] == "op"
        await still_lives(stage, client)


@pytest.mark.parametrize("identifier", [1.5, True, [], {}, "x" * 300])
async def test_an_id_of_a_wrong_type(stage, identifier):
    async with Client(stage.notifier) as client:
        await client.write({"op": "sub", "topic": stage.topic(), "id": identifier})
        reply = await client.next()
        assert reply["op"] == "err" and reply["code"] == "invalid" and reply["field"] == "id"
        assert "id" not in reply
        await still_lives(stage, client)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "{", "[]", '"text"', "5", "null", '{"op":"sub"', "{'op':'sub'}", '{"op":"sub",}',
        '{"op":"send","topic":"t","content":"a\tb"}', '{"op":"send","topic":"t","content":"\\ud800"}',
        "[" * 100_000, '{"op":' * 50_000, '{"a":1}}', '{"op":"send","topic":"t","content":"\\x"}',
        "\ufeff{}", '{"op":"sub","topic":"t","after":1e999}', '{"op":"sub","topic":"t","after":NaN}',
    ],
    ids=lambda text: repr(text[:30]),
)  # fmt: skip
async def test_text_that_is_no_json_object(stage, text):
    async with Client(stage.notifier) as client:
        await client.write(text)
        reply = await client.next()
        assert reply["op"] == "err" and reply["code"] == "invalid" and "id" not in reply, reply
        await still_lives(stage, client)


@pytest.mark.parametrize("name", ["content", "topic", "recipient", "sender", "idempotency_key"])
async def test_nul_characters_are_refused(stage, name):
    async with Client(stage.notifier) as client:
        frame = {"op": "send", "topic": stage.topic(), "content": "x"} | {name: "a\x00b"}
        reply = await client.ask(**frame)
        assert reply["op"] == "err" and reply["code"] in ("invalid", "rejected"), reply
        reply = await client.ask(op="send", topic=stage.topic(), payload={"k": "a\x00b"})
        assert reply["op"] == "err" and reply["code"] in ("invalid", "rejected"), reply
        await still_lives(stage, client)


async def test_a_key_given_twice(stage):
    """Whichever is taken, the answer is one frame and the connection lives."""
    async with Client(stage.notifier) as client:
        await client.write('{"op":"send","id":1,"topic":"t:1","topic":"t:2","content":"x"}')
        assert (await client.next())["op"] in ("ok", "err")
        await still_lives(stage, client)
