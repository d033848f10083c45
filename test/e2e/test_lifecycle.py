"""How connections end and come back: slow and silent clients, SIGTERM, kill -9, a database away."""

import asyncio
import json
import os
import select
import signal
import struct

import pytest

from client import Client, Reader
from herald import wait_until
from wire import CLOSE, PING, PONG, TEXT, Wire, make_frame, text_frame


def subscribed_wire(notifier, topic, **options):
    wire = Wire(notifier, **options)
    assert wire.upgrade() == 101
    wire.send(text_frame({"op": "sub", "topic": topic, "id": 1}))
    opcode, payload = wire.frame()
    assert opcode == TEXT and json.loads(payload)["op"] == "ok"
    return wire


async def test_a_client_that_stops_reading_is_cut_off_and_can_resume(stage, own_notifier):
    notifier = own_notifier("--max-buffer", "64kb")
    topic = stage.topic("slow")
    async with Client(notifier) as quick:
        await quick.subscribe(topic)
        with subscribed_wire(notifier, topic, receive_buffer=4096) as slow:
            # Far more than all buffers of the two kernels' ends and the notifier hold.
            heard = []
            while b'"closed_too_slow":0' in notifier.http("/ws/stats")[1]:
                assert len(heard) < 200, f"not cut off: {notifier.http('/ws/stats')[1]}"
                stage.publish(topic, "x" * 200_000)
                heard.append((await quick.message())["pos"])
            received, bye, code = [], None, None
            while code is None:
                opcode, payload = slow.frame()
                if opcode == CLOSE:
                    (code,) = struct.unpack("!H", payload[:2])
                elif opcode == TEXT:
                    frame = json.loads(payload)
                    assert bye is None, "a frame after bye"
                    bye = frame if frame.get("op") == "bye" else None
                    received += [frame] if "op" not in frame else []
            assert slow.ended()
        assert code == 4009
        assert bye["code"] == 4009 and bye["reconnect"] is True and bye["why"]
        positions = stage.positions(topic)
        got = [m["pos"] for m in received]
        assert got == positions[: len(got)] and len(got) < len(positions), "lost inside what came"
        assert heard == positions, "it slowed another client"
    async with Client(notifier) as again:
        await again.write({"op": "sub", "topic": topic, "after": got[-1] if got else 0, "id": 1})
        rest = await again.messages(len(positions) - len(got))
        assert [m["pos"] for m in rest] == positions[len(got) :]


async def test_a_slow_replay_waits_instead_of_being_cut_off(stage, own_notifier):
    """History is read page by page as the client takes it, however much there is."""
    notifier = own_notifier("--max-buffer", "64kb")
    topic = stage.topic("history")
    for _ in range(40):
        stage.publish(topic, "x" * 100_000)
    stage.settle(notifier)
    with Wire(notifier, receive_buffer=4096) as wire:
        assert wire.upgrade() == 101
        wire.send(text_frame({"op": "sub", "topic": topic, "after": 0, "id": 1}))
        async with Client(notifier) as other:
            for _ in range(50):  # turns of the loop in which the replay could run ahead
                await other.ask(op="sub", topic=stage.topic())
        frames = [json.loads(wire.frame()[1]) for _ in range(41)]
    assert [f.get("pos") for f in frames[:40]] == stage.positions(topic)
    assert frames[40]["op"] == "ok"


async def test_a_silent_client_is_dropped_and_a_living_one_is_not(stage, own_notifier):
    notifier = own_notifier("--ping-interval", "0.2", "--idle-timeout", "5")

    def be_silent():
        with Wire(notifier) as silent:
            assert silent.upgrade() == 101
            frames = []
            while not frames or frames[-1][0] != CLOSE:
                frames.append(silent.frame())
            assert silent.ended()
            return frames

    async with Client(notifier) as living:  # the library answers pings
        *before, (_, close) = await asyncio.to_thread(be_silent)
        assert struct.unpack("!H", close[:2]) == (4000,)
        assert PING in [opcode for opcode, _ in before]
        bye = json.loads(before[-1][1])
        assert bye["op"] == "bye" and bye["code"] == 4000 and bye["reconnect"] is True
        assert (await living.ask(op="sub", topic=stage.topic()))["op"] == "ok"


def test_pongs_keep_a_connection(stage, own_notifier):
    """For longer than the time-out, which is longer than a busy machine stands still."""
    notifier = own_notifier("--ping-interval", "0.1", "--idle-timeout", "5")
    with Wire(notifier) as wire:
        assert wire.upgrade() == 101
        for _ in range(60):
            opcode, payload = wire.frame()
            assert opcode == PING
            wire.send(make_frame(PONG, payload))


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
def test_requests_that_are_too_slow(own_notifier, begun):
    notifier = own_notifier("--head-timeout", "0.3")
    with Wire(notifier) as wire:
        wire.send(begun)
        assert wire.ended()
        assert not wire.buffer or wire.buffer.startswith(b"HTTP/1.1 408 ")


def test_a_request_that_trickles_in(own_notifier):
    """One byte now and then does not move the deadline."""
    notifier = own_notifier("--head-timeout", "0.3")
    with Wire(notifier) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
        for _ in range(200):
            if select.select([wire.socket], [], [], 0.05)[0]:
                break
            wire.try_send(b"x")
        else:
            pytest.fail("ten seconds of trickling were accepted")
        assert wire.ended()


async def test_more_connections_than_allowed(own_notifier):
    notifier = own_notifier("--max-connections", "2")
    async with Client(notifier) as one, Client(notifier):
        with Wire(notifier) as third:
            try:
                assert third.upgrade() == 503
            except (EOFError, ConnectionResetError):
                pass  # refused without an answer is fine too
        assert (await one.ask(op="nothing"))["op"] == "err"


async def test_sigterm_says_bye_with_spread_delays(stage, own_notifier):
    notifier = own_notifier()
    topic = stage.topic("term")
    clients = [await Client(notifier).__aenter__() for _ in range(16)]
    for client in clients:
        await client.subscribe(topic)
    last = stage.publish(topic, "last words")
    for client in clients:
        assert (await client.message())["id"] == last
    ended = asyncio.get_running_loop().run_in_executor(None, notifier.stop)
    delays = []
    for client in clients:
        code, bye = await client.closed()
        assert code == 1001
        assert bye["code"] == 1001 and bye["reconnect"] is True
        assert 0 <= bye["after_ms"] <= 5000
        delays.append(bye["after_ms"])
    assert len(set(delays)) > 4, "all are told to come back at the same moment"
    assert await ended == 0


async def test_sigterm_flushes_what_was_already_answered(stage, own_notifier):
    """Every send is either answered or can be repeated under its key without doubling."""
    notifier = own_notifier()
    topic = stage.topic("flush")

    def message(n):
        return {"op": "send", "topic": topic, "payload": n, "idempotency_key": f"{topic}{n}"}

    async with Client(notifier) as client:
        for n in range(200):
            await client.write(message(n) | {"id": n})
        assert (await client.next())["op"] == "ok"
        notifier.signal(signal.SIGTERM)
        await client.closed()
        answered = {f["id"]: f["message"] for f in client.waiting if f.get("op") == "ok"}
    notifier.stop()
    for n, identifier in answered.items():
        content = stage.value("SELECT content FROM herald.message_by_id(%s)", identifier)
        assert content == str(n)
    notifier.start()
    async with Client(notifier) as client:
        for n in range(200):
            ok = await client.ask(**message(n))
            assert answered.get(n, ok["message"]) == ok["message"]
    stored = stage.rows("SELECT content FROM herald.messages WHERE topic = %s", topic)
    assert sorted(int(row[0]) for row in stored) == list(range(200))


async def test_sigterm_with_a_client_that_does_not_answer(stage, own_notifier):
    """The end does not wait for ever for somebody who neither reads nor closes."""
    notifier = own_notifier("--max-buffer", "16mb")
    topic = stage.topic("stuck")
    with subscribed_wire(notifier, topic, receive_buffer=4096):
        for _ in range(50):
            stage.publish(topic, "x" * 200_000)
        assert await asyncio.to_thread(notifier.stop) == 0


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_readers_resume_over_restarts(stage, own_notifier, how):
    notifier = own_notifier()
    topic = stage.topic("resume")
    total = 400
    readers = [Reader(notifier, pattern) for pattern in (topic, f"{topic}*")]
    tasks = [asyncio.create_task(r.follow(lambda r: len(r.seen) >= total)) for r in readers]

    def send():
        for n in range(total):
            stage.publish(topic, n)
            if n % 100 == 50:
                notifier.restart(kill=how == "kill")

    await asyncio.to_thread(send)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    for reader in readers:
        assert [m["pos"] for m in reader.seen] == stage.positions(topic)
        assert reader.connections > 1 and reader.gaps == []


def cut_off(stage_cluster, database, keep):
    """Nobody but the connection `keep` can reach the database until let_in."""
    with stage_cluster.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> %s",
            (database, keep.info.backend_pid),
        )


def let_in(stage_cluster, database):
    with stage_cluster.connect() as connection:
        connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


async def test_while_the_database_is_away(cluster, database, notifier):
    """Connections live, sends are told to try again, and afterwards nothing is missing."""
    with cluster.connect(database) as kept:
        async with Client(notifier) as client:
            await client.subscribe("t:*")
            cut_off(cluster, database, kept)
            publish = "SELECT herald.publish('t:1', '1')::text FROM generate_series(1, 30)"
            ids = [row[0] for row in kept.execute(publish)]
            await asyncio.to_thread(wait_until, lambda: notifier.http("/readyz")[0] == 503)
            assert notifier.http("/healthz")[0] == 200
            message = {"op": "send", "topic": "t:2", "content": "x", "idempotency_key": "k"}
            frame, (status, body) = await asyncio.gather(
                client.ask(**message), asyncio.to_thread(notifier.http, "/topics/t:1/messages")
            )
            assert frame["op"] == "err" and frame["code"] == "unavailable" and frame["retry_ms"] > 0
            assert status == 503 and json.loads(body)["error"]["code"] == "unavailable"
            let_in(cluster, database)
            seen = await client.messages(30)
            assert [m["id"] for m in seen] == ids
            while (frame := await client.ask(**message))["op"] == "err":
                assert frame["code"] == "unavailable"
                await asyncio.sleep(frame["retry_ms"] / 1000)
            assert (await client.message())["id"] == frame["message"]
            await asyncio.to_thread(wait_until, lambda: notifier.http("/readyz")[0] == 200)


async def test_a_database_restored_from_an_older_state(cluster, database, notifier):
    """Positions go back: everybody is told to start afresh, and a resume says `reset`."""
    with cluster.connect(database) as connection:
        for n in range(50):
            connection.execute("SELECT herald.publish('t', to_jsonb(%s::int))", (n,))
    async with Client(notifier) as client:
        await client.subscribe("t", last=1)
        pos = (await client.message())["pos"]
        await asyncio.to_thread(cluster.drop_database, database)
        await asyncio.to_thread(cluster.create_database, database)
        code, bye = await client.closed()
        assert code == 4010
        assert bye["code"] == 4010 and bye["reconnect"] is True
    async with Client(notifier) as client:
        await client.write({"op": "sub", "topic": "t", "after": pos, "id": 1})
        gap = await client.next()
        assert gap["op"] == "gap" and gap["why"] == "reset" and gap["to"] < pos
        assert (await client.next())["op"] == "ok"
        with cluster.connect(database) as connection:
            connection.execute("SELECT herald.publish('t', '\"new\"')")
        assert (await client.message())["content"] == "new"


def test_logs_are_json_with_a_flag(stage, own_notifier):
    notifier = own_notifier("--log-format", "json", "--log-level", "debug")
    with Wire(notifier) as wire:
        assert wire.upgrade("/ws/connect?user=%22%0A%1B%5B31m") in (101, 400)
        wire.send(b"\xff\xff\n\x1b[31m")
        assert wire.ended()
    log_path = notifier.log_path
    notifier.stop()
    lines = log_path.read_text().splitlines()
    assert len(lines) >= 2
    for line in lines:
        assert isinstance(json.loads(line), dict)


def test_text_logs_hold_no_control_characters(own_notifier):
    notifier = own_notifier("--log-level", "debug")
    with Wire(notifier) as wire:
        wire.upgrade("/ws/connect?user=%0A%1B%5B31mfaked&agent=%0Dx")
    with Wire(notifier) as wire:
        wire.send(b"GET /\x1b[31m HTTP/1.1\r\n\r\n")
        wire.ended()
    notifier.stop()
    text = notifier.log_path.read_bytes()
    assert text and not [c for c in text if c < 32 and c != 10]


def test_descriptors_do_not_leak(own_notifier):
    notifier = own_notifier()
    folder = f"/proc/{notifier.pid}/fd"

    def open_now():
        return len(os.listdir(folder))

    before = open_now()
    for n in range(100):
        with Wire(notifier) as wire:
            if n % 2:
                wire.upgrade()
            else:
                wire.send(b"GET /")
    wait_until(lambda: open_now() <= before, what="the end of all connections")
