"""One envelope: byte for byte the same from SQL, LISTEN, WebSocket live and replayed, and HTTP."""

import json
from urllib.parse import quote

import psycopg.sql
import pytest

from client import Client

kNotifyLimit = 8000
kFrameLimit = 1 << 20

CONTENTS = {
    "empty": "",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "quotes": "\"\\/'`$$%s%%{}[]<b>&amp;</script>",
    "emoji": "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "separators": "a\u2028b\u2029c\u0085d\ufeffe\u200df",
    "planes": "\u00e9\u0800\uffff\U00010000\U0010ffff\ud7ff\ue000",
    "looks like JSON": '{"pos":1,"op":"bye"}',
    "lines": "\r\n\n\r\t  \v\f",
    "long": "😀\n\"x" * 900,
}
PAYLOADS = {
    "null": "null",
    "string": '"\\u0001\\u2028😀\\"\\\\"',
    "numbers": "[1.10, 1e5, -0, 12345678901234567890.00100]",
    "nested": '{"z": {"a": [[], {}, null, false]}, "": "empty key", "ü😀\\u2028": 1}',
}


def listened(stage, channel, act):
    """Runs act() while a libpq session listens; gives its result and the payload heard."""
    with stage.connect() as listener:
        listener.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        result = act()
        notify = next(listener.notifies())
        return result, notify.payload


async def five_envelopes(stage, topic, act):
    """What a message stored by act() looks like from everywhere; the same text is asserted for all
    that are within the limits. Gives the full envelope."""
    channel = stage.value("SELECT herald.channel(%s)", topic)
    stage.settle()
    async with Client(stage.notifier) as live:
        await live.subscribe(topic)
        identifier, payload = listened(stage, channel, act)
        pushed = (await live.message()).raw
    async with Client(stage.notifier) as late:
        await late.write({"op": "sub", "topic": topic, "last": 1, "id": 1})
        replayed = (await late.message()).raw
    full = stage.envelope(identifier)
    size = len(full.encode())
    status, body = stage.notifier.http(f"/messages/{identifier}")
    assert status == 200 and body.decode() == full
    before = json.loads(pushed)["pos"] - 1
    status, body = stage.notifier.http(f"/topics/{quote(topic)}/messages?after={before}")
    assert status == 200

    if size < kNotifyLimit:
        assert payload == full
    else:
        assert payload == stage.envelope(identifier, kNotifyLimit - 1)
        assert "ref" in json.loads(payload) and "content" not in json.loads(payload)
        assert len(payload.encode()) < kNotifyLimit
    framed = full if size <= kFrameLimit else stage.envelope(identifier, kFrameLimit)
    assert pushed == framed
    assert replayed == framed
    assert framed in body.decode()
    return full, json.loads(framed)


@pytest.mark.parametrize("name", CONTENTS)
async def test_text_of_every_kind(stage, name):
    topic, content = stage.topic(), CONTENTS[name]
    act = lambda: stage.send(topic=topic, sender=content[:40] or None, content=content)  # noqa: E731
    full, decoded = await five_envelopes(stage, topic, act)
    assert decoded["content"] == content
    assert "\n" not in full and "\r" not in full


@pytest.mark.parametrize("name", PAYLOADS)
async def test_json_of_every_kind(stage, name):
    topic = stage.topic()

    def act():
        return str(stage.value("SELECT herald.publish(%s, %s::jsonb)", topic, PAYLOADS[name]))

    full, decoded = await five_envelopes(stage, topic, act)
    assert decoded["content"] == json.loads(PAYLOADS[name])
    assert f'"content":{stage.value("SELECT %s::jsonb::text", PAYLOADS[name])}' in full


async def test_everything_filled_in(stage):
    topic = stage.topic("full:ü:😀")
    first = stage.publish(topic)

    def act():
        return stage.send(
            topic=topic, sender="s\"\\", recipient="r\u2028", content="c", message_type="t\t",
            metadata=json.dumps({"b": 1, "a": "\u0001"}), conversation="😀", reply_to=first,
            priority=9, ordering_key="k\n", ttl="1 hour",
        )  # fmt: skip

    _, decoded = await five_envelopes(stage, topic, act)
    assert list(decoded) == [
        "pos", "id", "topic", "type", "sender", "recipient", "conversation", "at", "content",
        "metadata", "reply_to", "priority", "key", "expires_at",
    ]  # fmt: skip
    assert decoded["sender"] == 's"\\' and decoded["key"] == "k\n" and decoded["conversation"] == "😀"


async def test_what_is_null_is_absent(stage):
    topic = stage.topic()
    _, decoded = await five_envelopes(stage, topic, lambda: stage.publish(topic, {}))
    assert list(decoded) == ["pos", "id", "topic", "type", "at", "content"]


@pytest.mark.parametrize("limit", [kNotifyLimit, kFrameLimit])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
async def test_borders_of_the_ref_form(stage, limit, beyond):
    """Envelopes of exactly the limit, one byte less and one more."""
    topic = stage.topic("border")
    target = limit + beyond
    probe = stage.send(topic=topic, content="")
    content = "x" * (target - len(stage.envelope(probe).encode()))
    act = lambda: stage.send(topic=topic, content=content)  # noqa: E731
    full, decoded = await five_envelopes(stage, topic, act)
    # A position with one digit more than the probe's moves the size by one.
    assert len(full.encode()) - target in (0, 1)
    if len(full.encode()) > kFrameLimit:
        assert "content" not in decoded
        assert decoded["ref"]["bytes"] > 0 and decoded["ref"]["checksum"]
        assert decoded["ref"]["href"] == f"/messages/{decoded['id']}"
        status, body = stage.notifier.http(decoded["ref"]["href"])
        assert status == 200 and json.loads(body)["content"] == content
    else:
        assert decoded["content"] == content


async def test_plain_insert_and_copy_are_announced_with_the_same_envelope(stage):
    topic = stage.topic("insert")

    def insert():
        row = "INSERT INTO herald.message (topic, content) VALUES (%s, 'x') RETURNING id"
        return str(stage.value(row, topic))

    await five_envelopes(stage, topic, insert)

    def copy():
        with stage.connection.cursor() as cursor:
            with cursor.copy("COPY herald.message (topic, content) FROM STDIN") as rows:
                rows.write_row((topic, "by COPY"))
        return str(stage.value("SELECT id FROM herald.tail(%s, 1)", topic))

    _, decoded = await five_envelopes(stage, topic, copy)
    assert decoded["content"] == "by COPY"


async def test_a_watched_table(stage):
    topic = stage.topic("watch")
    stage.connection.execute("CREATE TABLE watched (id int PRIMARY KEY, text text)")
    stage.connection.execute("SELECT herald.watch('watched', %s)", (topic,))

    def change():
        stage.connection.execute("INSERT INTO watched VALUES (1, %s)", ("ü\n😀",))
        return str(stage.value("SELECT id FROM herald.tail(%s, 1)", topic))

    _, decoded = await five_envelopes(stage, topic, change)
    assert decoded["content"] == {
        "event": "insert", "table": "public.watched", "new": {"id": 1, "text": "ü\n😀"},
    }  # fmt: skip
    stage.connection.execute("DROP TABLE watched")
