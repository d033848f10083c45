"""sub and unsub: where a subscription begins, what it matches; nothing is lost or doubled."""

import asyncio
import random
import signal
import threading

import pytest

from client import Client
from herald import Notifier


async def fence(stage, client, *topics):
    """Publishes one more message to each topic and gives what the client had before them."""
    seen = []
    for topic in topics:
        seen += await client.until(stage.publish(topic, "fence"))
    return seen


def publish_many(stage, topic, count):
    """Publishes the numbers from 1 to count in one statement."""
    stage.value(
        "SELECT count(*) FROM herald.publish_batch(%s,"
        " ARRAY(SELECT to_jsonb(n) FROM generate_series(1, %s) n))",
        topic, count,
    )  # fmt: skip


async def test_after_replays_everything_above(stage):
    topic = stage.topic()
    ids = [stage.publish(topic, n) for n in range(5)]
    positions = stage.positions(topic)
    stage.settle()
    async with Client(stage.notifier) as client:
        await client.write({"op": "sub", "topic": topic, "after": positions[1], "id": 1})
        replayed = await client.messages(3)
        assert [m["id"] for m in replayed] == ids[2:]
        assert [m["content"] for m in replayed] == [2, 3, 4]
        ok = await client.next()
        assert ok == {"op": "ok", "id": 1, "topic": topic, "pos": ok["pos"]}
        assert ok["pos"] >= positions[-1]
        live = stage.publish(topic, "live")
        assert (await client.message())["id"] == live


async def test_after_zero_replays_many_pages(stage):
    topic = stage.topic()
    publish_many(stage, topic, 3000)
    stage.settle()
    async with Client(stage.notifier) as client:
        await client.write({"op": "sub", "topic": topic, "after": 0, "id": "all"})
        assert [m["content"] for m in await client.messages(3000)] == list(range(1, 3001))
        assert (await client.next())["op"] == "ok"


@pytest.mark.parametrize("last", [1, 3, 5, 50])
async def test_last_replays_exactly_so_many(stage, last):
    topic, other = stage.topic(), stage.topic()
    ids = []
    for n in range(5):
        ids.append(stage.publish(topic, n))
        stage.publish(other, n)
    async with Client(stage.notifier) as client:
        await client.subscribe(topic, last=last)
        assert [m["id"] for m in await client.messages(min(last, 5))] == ids[-last:]
        assert await fence(stage, client, topic) == []


async def test_last_is_exact_while_the_feed_is_behind(stage):
    """What was just committed counts, even if the notifier has not heard of it yet."""
    base = stage.topic()
    async with Client(stage.notifier) as client:
        for n in range(100):
            topic = f"{base}:{n}"
            publish = "SELECT herald.publish(%s, '1')::text FROM generate_series(1, 5)"
            ids = [row[0] for row in stage.rows(publish, topic)]
            await client.subscribe(topic, last=2)
            assert [m["id"] for m in await fence(stage, client, topic)] == ids[-2:]


async def test_neither_begins_now(stage):
    topic = stage.topic()
    async with Client(stage.notifier) as client:
        for n in range(30):
            await client.subscribe(topic)
            await client.until(stage.publish(topic, "old"))
            await client.ask(op="unsub", topic=topic)
            ok = await client.subscribe(topic)
            new = stage.publish(topic, n)
            message = await client.message()
            assert message["id"] == new
            assert message["pos"] > ok["pos"] >= stage.positions(topic)[-2]
            await client.ask(op="unsub", topic=topic)


async def test_patterns(stage):
    base = stage.topic("pattern")
    names = [f"{base}:a", f"{base}:ab", f"{base}:a:b:c", f"{base}:é", f"{base}:b", f"x{base}:a"]
    cases = {
        f"{base}:*": 5, f"{base}:a*": 3, f"{base}:?": 3, f"{base}:a?": 1, f"{base}:a*c": 1,
        f"{base}:a": 1, f"*{base}:a": 2, f"{base}": 0, f"{base}:a**": 3, f"{base}:??": 1,
    }  # fmt: skip
    for pattern, expected in cases.items():
        matching = {n for n in names if stage.value("SELECT herald.matches(%s, %s)", pattern, n)}
        assert len(matching) == expected, pattern
        async with Client(stage.notifier) as client:
            await client.subscribe(pattern)
            await client.subscribe(f"{base}:fence:of:patterns", after=stage.horizon())
            for name in names:
                stage.publish(name, name)
            last = stage.publish(f"{base}:fence:of:patterns", 0)
            assert {m["topic"] for m in await client.until(last)} == matching, pattern
        stage.settle()
        async with Client(stage.notifier) as client:
            await client.write({"op": "sub", "topic": pattern, "after": 0, "id": 1})
            replayed = []
            while (frame := await client.next()).is_message:
                replayed.append(frame["topic"])
            assert set(replayed) - {f"{base}:fence:of:patterns"} == matching, pattern


async def test_star_hears_every_topic(stage):
    async with Client(stage.notifier) as client:
        await client.subscribe("*")
        ids = [stage.publish(stage.topic("any"), n) for n in range(3)]
        assert [m["id"] for m in await client.messages(3)] == ids


async def test_unsub_ends_delivery(stage):
    topic, kept = stage.topic(), stage.topic()
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        await client.subscribe(kept)
        ok = await client.ask(op="unsub", topic=topic, id="away")
        assert ok["op"] == "ok" and ok["id"] == "away" and ok["topic"] == topic
        stage.publish(topic)
        assert await fence(stage, client, kept) == []
        await client.subscribe(topic, last=1)
        assert (await client.message())["topic"] == topic


async def test_unsub_of_one_of_two_that_match(stage):
    topic = stage.topic()
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        await client.subscribe(f"{topic}*")
        await client.ask(op="unsub", topic=topic)
        message = stage.publish(topic)
        assert (await client.message())["id"] == message


async def test_unsub_in_the_middle_of_a_replay(stage):
    topic, kept = stage.topic(), stage.topic()
    publish_many(stage, topic, 5000)
    async with Client(stage.notifier) as client:
        await client.subscribe(kept)
        await client.write({"op": "sub", "topic": topic, "after": 0, "id": 1})
        await client.write({"op": "unsub", "topic": topic, "id": 2})
        assert (await client.reply(2))["op"] == "ok"
        client.waiting.clear()
        stage.publish(topic)
        assert await fence(stage, client, kept) == []


async def test_unsub_of_what_is_not_subscribed(stage):
    async with Client(stage.notifier) as client:
        frame = await client.ask(op="unsub", topic=stage.topic())
        assert frame["op"] == "err" and frame["code"] == "invalid" and frame["field"] == "topic"


async def test_second_sub_of_the_same_topic_is_refused(stage):
    topic = stage.topic()
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        frame = await client.ask(op="sub", topic=topic)
        assert frame["op"] == "err" and frame["code"] == "invalid" and frame["field"] == "topic"
        message = stage.publish(topic)
        assert (await client.message())["id"] == message


@pytest.mark.parametrize("identifier", [0, -7, 2**53 - 1, 2**70, "", "text", "ü😀\u2028\"\\"])
async def test_ids_are_echoed(stage, identifier):
    async with Client(stage.notifier) as client:
        topic = stage.topic()
        assert (await client.ask(op="sub", topic=topic, id=identifier))["id"] == identifier
        ok = await client.ask(op="send", topic=topic, content="x", id=identifier)
        assert ok["op"] == "ok" and ok["id"] == identifier
        assert (await client.ask(op="nothing", id=identifier))["op"] == "err"


async def test_an_id_may_be_absent(stage):
    async with Client(stage.notifier) as client:
        await client.write({"op": "sub", "topic": stage.topic()})
        frame = await client.next()
        assert frame["op"] == "ok" and "id" not in frame


async def test_overlapping_subscriptions_deliver_once(stage):
    base = stage.topic("overlap")
    topic = f"{base}:inbox"
    old = [stage.publish(topic, n) for n in range(10)]
    stage.settle()
    async with Client(stage.notifier) as client:
        await client.subscribe(topic, after=0)
        await client.subscribe(f"{base}:*")
        await client.subscribe(f"*{base}*")
        await client.subscribe("*")
        assert [m["id"] for m in await client.messages(10)] == old
        new = [stage.publish(topic, n) for n in range(20)]
        assert [m["id"] for m in await client.messages(20)] == new
        assert await fence(stage, client, topic) == []


async def test_overlapping_subscriptions_while_one_replays(stage):
    """A pattern replays thousands of messages while the topic inside it is live."""
    base = stage.topic("overlap")
    topic = f"{base}:inbox"
    publish_many(stage, topic, 4000)
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        await client.write({"op": "sub", "topic": f"{base}*", "after": 0, "id": "replay"})
        for n in range(50):
            stage.publish(topic, n)
        assert (await client.reply("replay"))["op"] == "ok"
        seen = await client.until(stage.publish(topic, "fence"))
        positions = [m["pos"] for m in seen]
        assert len(positions) == len(set(positions)), "a message came twice"
        assert sorted(positions) == stage.positions(topic)[:-1]


async def test_hand_over_is_exact_while_eight_connections_send(stage, seed):
    """Clients that subscribe at any moment of a busy stream get all of it once and in order."""
    rng = random.Random(seed)
    topic = stage.topic("handover")
    errors = []

    publish = "SELECT herald.publish(%s, jsonb_build_array(%s::int, %s::int))"

    def sender(number, seed):
        rng = random.Random(seed)
        try:
            with stage.connect(autocommit=False) as connection:
                for n in range(120):
                    for _ in range(rng.choice((1, 1, 1, 3))):
                        connection.execute(publish, (topic, number, n))
                    connection.rollback() if rng.random() < 0.15 else connection.commit()
        except Exception as error:  # an assertion of the main thread shows it
            errors.append(error)

    threads = [threading.Thread(target=sender, args=(i, rng.random())) for i in range(8)]
    for thread in threads:
        thread.start()
    clients = []
    try:
        while any(thread.is_alive() for thread in threads) and len(clients) < 24:
            client = await Client(stage.notifier).__aenter__()
            pattern = rng.choice((topic, f"{topic}*", f"*{topic}"))
            after = rng.choice([0, *stage.positions(topic)])
            await client.write({"op": "sub", "topic": pattern, "after": after, "id": 1})
            clients.append((client, after))
            await asyncio.to_thread(stage.value, "SELECT herald.horizon()")
    finally:
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
    assert not errors
    last = stage.publish(topic, "fence")
    expected = stage.rows("SELECT pos, id::text FROM herald.read(%s, 0, 10000)", topic)
    assert len(clients) > 3
    for client, after in clients:
        seen = []
        while True:
            frame = await client.next()
            if frame.is_message:
                seen.append((frame["pos"], frame["id"]))
                if frame["id"] == last:
                    break
        await client.close()
        assert seen == [row for row in expected if row[0] > after]


def drop(stage, topic):
    """Drops the topic; returns when the notifier knows."""
    stage.value("SELECT herald.drop_topic(%s)::text", topic)
    # What the feed asks for the second message it asks after it has heard of the drop.
    for _ in range(2):
        stage.publish("fence:of:drop")
        stage.settle()


async def test_gap_after_drop_topic(stage):
    topic = stage.topic("dropped")
    for n in range(4):
        stage.publish(topic, n)
    positions = stage.positions(topic)
    drop(stage, topic)
    kept = stage.publish(topic, "kept")
    stage.settle()
    async with Client(stage.notifier) as client:
        await client.write({"op": "sub", "topic": topic, "after": positions[0], "id": 1})
        gap = await client.next()
        assert gap["op"] == "gap" and gap["topic"] == topic and gap["why"] == "dropped"
        assert positions[0] <= gap["from"] <= positions[1]
        assert positions[-1] <= gap["to"] < stage.positions(topic)[0]
        assert (await client.message())["id"] == kept
        assert (await client.next())["op"] == "ok"
    async with Client(stage.notifier) as client:  # nothing above `after` is missing: no gap
        await client.write({"op": "sub", "topic": topic, "after": gap["to"], "id": 1})
        assert (await client.message())["id"] == kept


async def test_gap_whether_or_not_the_notifier_saw_what_was_dropped(stage):
    publish = "SELECT herald.publish(%s, '1')::text FROM generate_series(1, 3)"
    async with Client(stage.notifier) as client:
        for _ in range(20):
            topic = stage.topic("dropped")
            stage.rows(publish, topic)
            first = stage.positions(topic)[0]
            drop(stage, topic)
            await client.write({"op": "sub", "topic": topic, "after": first, "id": topic})
            gap = await client.next()
            assert gap["op"] == "gap" and gap["why"] == "dropped" and gap["to"] == first + 2
            assert (await client.next())["op"] == "ok"


async def test_dropped_messages_are_not_replayed_from_memory(stage):
    topic = stage.topic("dropped")
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        for n in range(20):
            dropped = stage.publish(topic, n)
            await client.until(dropped)
            position = stage.positions(topic)[0]
            drop(stage, topic)
            kept = stage.publish(topic, "kept")
            async with Client(stage.notifier) as late:
                await late.write({"op": "sub", "topic": topic, "after": position - 1, "id": 1})
                assert (await late.next())["op"] == "gap"
                await late.reply(1)
                assert (await late.message())["id"] == kept
            assert [m["content"] for m in await fence(stage, client, topic)] == ["kept"]


async def test_gap_when_after_is_beyond_the_horizon(stage):
    topic = stage.topic("reset")
    stage.publish(topic)
    async with Client(stage.notifier) as client:
        beyond = stage.horizon() + 1_000_000
        await client.write({"op": "sub", "topic": topic, "after": beyond, "id": 1})
        gap = await client.next()
        assert gap["op"] == "gap" and gap["why"] == "reset"
        assert gap["to"] <= stage.horizon()
        assert (await client.next())["op"] == "ok"
        new = stage.publish(topic, "new")
        assert (await client.message())["id"] == new


async def test_a_thousand_subscriptions_and_one_more(stage):
    base = stage.topic("many")
    async with Client(stage.notifier) as client:
        for n in range(1000):
            await client.write({"op": "sub", "topic": f"{base}:{n}:*", "id": n})
        for n in range(1000):
            assert (await client.next())["op"] == "ok"
        frame = await client.ask(op="sub", topic=f"{base}:1000:*")
        assert frame["op"] == "err" and frame["code"] == "limit"
        message = stage.publish(f"{base}:999:x")
        assert (await client.message())["id"] == message
        await client.ask(op="unsub", topic=f"{base}:0:*")
        await client.subscribe(f"{base}:1000:*")


async def test_live_subscriptions_are_told_of_what_was_gone_before_the_notifier_read_it(stage):
    """Retention, or drop_topic, was faster. Each subscription that lost something gets one gap."""
    base = stage.topic()
    kept, trimmed, dropped = (f"{base}:{name}" for name in ("kept", "trimmed", "dropped"))
    with Notifier(stage.notifier.conninfo) as notifier:
        async with Client(notifier) as exact, Client(notifier) as pattern:
            for topic in (kept, trimmed, dropped):
                await exact.subscribe(topic)
            await pattern.subscribe(f"{base}:*")
            seen = stage.publish(trimmed)
            for client in (exact, pattern):
                assert (await client.message())["id"] == seen
            notifier.signal(signal.SIGSTOP)
            ids = [stage.publish(topic, n) for n in range(3) for topic in (kept, trimmed, dropped)]
            lost = {topic: stage.positions(topic) for topic in (trimmed, dropped)}
            stage.value("SELECT herald.trim(%s, %s)", trimmed, lost[trimmed][-1])
            stage.value("SELECT herald.drop_topic(%s)::text", dropped)
            notifier.signal(signal.SIGCONT)
            gone = {trimmed: (lost[trimmed][-2], "retention"), dropped: (lost[dropped][-1], "dropped")}
            for _ in range(2):
                gap = await exact.next()
                assert gap["op"] == "gap" and (gap["to"], gap["why"]) == gone.pop(gap["topic"])
                assert gap["from"] < gap["to"]
            gap = await pattern.next()
            assert (gap["op"], gap["topic"], gap["to"]) == ("gap", f"{base}:*", lost[dropped][-1])
            left = [ids[0], ids[3], ids[6], ids[7]]
            for client in (exact, pattern):
                assert [message["id"] for message in await client.messages(4)] == left
            # Nor does the notifier's memory of the log hide it from who comes later.
            async with Client(notifier) as later:
                await later.write(
                    {"op": "sub", "topic": trimmed, "after": lost[trimmed][0], "id": 1}
                )
                gap = await later.next()
                assert (gap["op"], gap["to"]) == ("gap", lost[trimmed][-2])
