"""Hand-made frames: everything RFC 6455 forbids ends that one connection with the right code."""

import json
import random
import struct
import time

import pytest

from wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Wire, make_frame, text_frame

kMaxFrame = 1 << 20


@pytest.fixture
def wire(stage):
    with Wire(stage.notifier) as wire:
        assert wire.upgrade() == 101
        yield wire
    status, body = stage.notifier.http("/healthz")
    assert (status, body.strip()) == (200, b"ok")


def read_json(wire):
    opcode, payload = wire.frame()
    assert opcode == TEXT
    return json.loads(payload)


def close_payload(code, reason=b""):
    return struct.pack("!H", code) + reason


kProtocolErrors = {
    "unmasked text": make_frame(TEXT, b"{}", masked=False),
    "unmasked ping": make_frame(PING, b"", masked=False),
    "reserved bit 1": make_frame(TEXT, b"{}", reserved=4),
    "reserved bit 2": make_frame(TEXT, b"{}", reserved=2),
    "reserved bit 3": make_frame(TEXT, b"{}", reserved=1),
    "reserved bit on a ping": make_frame(PING, b"", reserved=4),
    "opcode 3": make_frame(3, b""),
    "opcode 7": make_frame(7, b"x"),
    "opcode 11": make_frame(11, b""),
    "opcode 15": make_frame(15, b"x"),
    "fragmented ping": make_frame(PING, b"x", fin=False),
    "fragmented close": make_frame(CLOSE, close_payload(1000), fin=False),
    "ping of 126 bytes": make_frame(PING, b"x" * 126),
    "continuation of nothing": make_frame(CONTINUATION, b"{}"),
    "text inside a fragmented text": make_frame(TEXT, b"{", fin=False) + make_frame(TEXT, b"}"),
    "close with one byte": make_frame(CLOSE, b"\x03"),
    "close code 999": make_frame(CLOSE, close_payload(999)),
    "close code 1005": make_frame(CLOSE, close_payload(1005)),
    "close code 1006": make_frame(CLOSE, close_payload(1006)),
    "close code 65535": make_frame(CLOSE, close_payload(65535)),
}


@pytest.mark.parametrize("name", kProtocolErrors)
def test_protocol_errors(wire, name):
    wire.send(kProtocolErrors[name])
    assert wire.close_code() == 1002
    assert wire.ended()


def test_a_length_with_its_highest_bit_set(wire):
    wire.send(b"\x81\xff" + b"\xff" * 8)
    assert wire.close_code() in (1002, 1009)
    assert wire.ended()


def test_binary_messages_are_refused(wire):
    wire.send(make_frame(BINARY, b"{}"))
    assert wire.close_code() == 1003
    assert wire.ended()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1", b"abc\x80",
        b"\xf0\x9f\x98",
    ],
    ids=lambda data: data.hex(),
)
def test_invalid_utf8(wire, data):
    wire.send(make_frame(TEXT, data))
    assert wire.close_code() == 1007
    assert wire.ended()


def test_invalid_utf8_fails_as_soon_as_it_is_seen(wire):
    """The last fragment is never sent: the first bad byte is enough."""
    wire.send(make_frame(TEXT, b'{"op":"\xce\xba', fin=False))
    wire.send(make_frame(CONTINUATION, b"\xe1\xbd", fin=False))
    wire.send(make_frame(CONTINUATION, b"\xb9\xf4\x90", fin=False))
    assert wire.close_code() == 1007


def test_invalid_utf8_fails_inside_an_unfinished_frame(wire):
    wire.send(make_frame(TEXT, b'{"op":"\xf4\x90' + b"x" * 100)[:-50])
    assert wire.close_code() == 1007


def test_utf8_split_at_every_byte_is_fine(wire):
    data = json.dumps({"op": "ü😀\u2028", "id": "κόσμε"}, ensure_ascii=False).encode()
    wire.send(make_frame(TEXT, data[:1], fin=False))
    for byte in data[1:]:
        wire.send(make_frame(CONTINUATION, bytes([byte]), fin=False))
    wire.send(make_frame(CONTINUATION, b""))
    frame = read_json(wire)
    assert frame["op"] == "err" and frame["code"] == "unknown_op" and frame["id"] == "κόσμε"


def test_a_character_cut_off_by_the_end_of_the_message(wire):
    wire.send(make_frame(TEXT, b"\xe2\x82", fin=False) + make_frame(CONTINUATION, b""))
    assert wire.close_code() == 1007


def test_ping_between_fragments(wire):
    wire.send(make_frame(TEXT, b'{"op":"x",', fin=False))
    wire.send(make_frame(PING, b"a" * 125))
    assert wire.frame() == (PONG, b"a" * 125)
    wire.send(make_frame(CONTINUATION, b'"id":1}'))
    assert read_json(wire)["id"] == 1


def test_a_frame_byte_by_byte(wire):
    for byte in text_frame({"op": "x", "id": "slow"}):
        wire.send(bytes([byte]))
    assert read_json(wire)["id"] == "slow"


def test_many_frames_in_one_write(wire):
    wire.send(b"".join(text_frame({"op": "x", "id": n}) for n in range(500)))
    assert [read_json(wire)["id"] for _ in range(500)] == list(range(500))


@pytest.mark.parametrize("code", [126, 127])
def test_lengths_longer_than_needed(wire, code):
    """RFC 6455 wants the shortest form; refuse or accept, but cleanly."""
    wire.send(make_frame(TEXT, b'{"op":"x","id":1}', length_code=code))
    opcode, payload = wire.frame()
    assert (opcode, payload[:2]) == (CLOSE, b"\x03\xea") or json.loads(payload)["id"] == 1


def test_unsolicited_pong_is_ignored(wire):
    wire.send(make_frame(PONG, b"x") + text_frame({"op": "x", "id": 1}))
    assert read_json(wire)["id"] == 1


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_is_answered_with_its_code(wire, code):
    wire.send(make_frame(CLOSE, close_payload(code, "ade ü".encode())))
    assert wire.close_code() == code
    assert wire.ended()


def test_close_without_a_code(wire):
    wire.send(make_frame(CLOSE))
    assert wire.close_code() in (1000, 1005)
    assert wire.ended()


def test_close_with_a_reason_that_is_not_utf8(wire):
    wire.send(make_frame(CLOSE, close_payload(1000, b"\xff")))
    assert wire.close_code() in (1002, 1007)
    assert wire.ended()


def test_nothing_is_read_after_close(stage, wire):
    topic = stage.topic()
    late = text_frame({"op": "send", "topic": topic, "content": "x"})
    wire.send(make_frame(CLOSE, close_payload(1000)) + late)
    assert wire.close_code() == 1000
    assert wire.ended()
    assert stage.positions(topic) == []


def test_the_largest_frame_is_taken(stage, wire):
    head, tail = '{"op":"send","id":1,"topic":"%s","content":"' % stage.topic(), '"}'
    content = "x" * (kMaxFrame - len(head) - len(tail))
    wire.send(make_frame(TEXT, (head + content + tail).encode()))
    answer = read_json(wire)
    assert answer["op"] == "ok", answer
    stored = stage.value("SELECT content FROM herald.message_by_id(%s)", answer["message"])
    assert stored == content


def test_a_frame_one_byte_too_large(wire):
    wire.try_send(make_frame(TEXT, b"x" * (kMaxFrame + 1)))
    assert wire.close_code() == 1009
    assert wire.ended()


def test_a_frame_is_refused_by_what_its_header_says(wire):
    wire.send(b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"mask" + b"x")
    assert wire.close_code() == 1009
    assert wire.ended()


def test_fragments_that_add_up_to_too_much(wire):
    wire.send(make_frame(TEXT, b"x", fin=False))
    part = make_frame(CONTINUATION, b"x" * 65536, fin=False)
    for _ in range(17):
        wire.try_send(part)
    assert wire.close_code() == 1009
    assert wire.ended()


def test_endless_empty_fragments_do_not_grow_memory(stage, wire):
    """200,000 fragments of nothing, then the message is still understood or refused as too much."""
    before = stage.notifier.rss()
    nothing = make_frame(CONTINUATION, b"", fin=False)
    wire.try_send(make_frame(TEXT, b"", fin=False) + nothing * 200_000)
    wire.try_send(make_frame(CONTINUATION, b'{"op":"x","id":1}'))
    opcode, payload = wire.frame()
    assert opcode == CLOSE or json.loads(payload)["id"] == 1
    assert stage.notifier.rss() - before < 16 << 20


def test_garbage_instead_of_frames(stage, seed):
    """100 connections of random bytes; the notifier stays and serves the next."""
    rng = random.Random(seed)
    for _ in range(100):
        with Wire(stage.notifier) as wire:
            assert wire.upgrade() == 101
            wire.try_send(rng.randbytes(rng.randrange(1, 3000)))
    assert stage.notifier.http("/healthz")[0] == 200


def test_a_connection_cut_in_the_middle_of_a_frame(stage):
    with Wire(stage.notifier) as wire:
        assert wire.upgrade() == 101
        wire.send(text_frame({"op": "sub", "topic": stage.topic()})[:-3])
        identifier = newest_connection(stage)
    deadline = time.monotonic() + 30
    while identifier in connections(stage):
        assert time.monotonic() < deadline, "the connection is still counted"


def connections(stage):
    return {connection["id"] for connection in stage.json("/ws/connections")["connections"]}


def newest_connection(stage):
    return max(stage.json("/ws/connections")["connections"], key=lambda c: c["connected_at"])["id"]
