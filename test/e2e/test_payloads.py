"""Payloads over HTTP: uploads and downloads that are whole, in parts, broken, hostile, slow."""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import uuid
import zlib
from pathlib import Path

import pytest

from client import Client
from herald import wait_until
from wire import Wire

kMegabyte = 1 << 20
kLarge = 100 * 1000 * 1000
kGrowth = 8 * kMegabyte  # of the notifier, for a transfer of any size


def digest_field(content):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def checksum(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def large():
    return os.urandom(kLarge)


class Http:
    """Requests on one connection of the standard library's client."""

    def __init__(self, notifier):
        self.connection = http.client.HTTPConnection(notifier.host, notifier.port, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def __call__(self, method, path, body=None, headers=None, **options):
        self.connection.request(method, path, body, headers or {}, **options)
        response = self.connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


@pytest.fixture
def ask(stage):
    with Http(stage.notifier) as client:
        yield client


def upload(ask, content, **headers):
    """Gives the payload's id."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer_headers, body = ask("POST", "/payloads", content, headers)
    assert status == 201, body
    answer = json.loads(body)
    assert answer["bytes"] == len(content) and answer["checksum"] == checksum(content)
    assert answer_headers["location"] == f"/payloads/{answer['payload']}"
    return answer["payload"]


def send(stage, payload, topic=None):
    """Sends a payload; gives the message's id."""
    return str(
        stage.value("SELECT herald.send_payload(%s, topic => %s)", payload, topic or stage.topic())
    )


def state_of(ask, payload):
    status, headers, _ = ask("HEAD", f"/payloads/{payload}")
    assert status == 200
    return int(headers["upload-offset"]), headers["upload-complete"] == "?1"


def only_gzip_member(body):
    """The content of the first gzip member, behind which there must be nothing."""
    inflate = zlib.decompressobj(31)
    content = inflate.decompress(body)
    assert inflate.eof and inflate.unused_data == b""
    return content


def growth(notifier, work):
    """How much the notifier's peak memory grew while `work` ran."""
    with open(f"/proc/{notifier.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak is now what is resident
    before = notifier.rss()
    work()
    if Path(os.environ.get("HERALD_BUILD") or "").name == "address":
        return 0  # the sanitizer holds back what has been freed
    with open(f"/proc/{notifier.pid}/status", encoding="ascii") as file:
        [peak] = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")]
    return peak - before


def test_a_round_trip_of_100_megabytes(own_notifier, stage, large):
    notifier = own_notifier()
    received = []

    def there_and_back():
        with Http(notifier) as ask:
            payload = upload(ask, large, content_type="image/png")
            message = send(stage, payload)
            status, headers, body = ask("GET", f"/messages/{message}")
            assert status == 200 and headers["content-type"] == "image/png"
            assert headers["etag"] == f'"{checksum(large)}"'
            received.append(hashlib.sha256(body).hexdigest())

    assert growth(notifier, there_and_back) < kGrowth
    assert received == [hashlib.sha256(large).hexdigest()]


@pytest.mark.parametrize("size", [0, 1, 262143, 262144, 262145, 786432, 786433, 3_000_000])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_sizes_and_compressions(ask, stage, size, compression):
    content = (b"abcdefgh" * (size // 8 + 1))[:size]
    status, _, body = ask("POST", f"/payloads?compression={compression}", content)
    assert status == 201, body
    message = send(stage, json.loads(body)["payload"])
    plain = {"Accept-Encoding": "identity"}
    status, headers, body = ask("GET", f"/messages/{message}", headers=plain)
    assert status == 200 and body == content
    assert "content-encoding" not in headers
    # Whoever takes it compressed gets it as it is stored, or else as it was.
    for accepted in ("gzip", "zstd", "gzip, deflate, br, zstd"):
        fields = {"Accept-Encoding": accepted}
        status, headers, body = ask("GET", f"/messages/{message}", headers=fields)
        assert status == 200
        stored = size > 0 and compression in accepted
        assert headers.get("content-encoding") == (compression if stored else None)
        assert not stored or len(body) < size or size < 100
        if not stored:
            assert body == content
        elif compression == "gzip":
            assert only_gzip_member(body) == content
        else:
            assert body[:4] == b"\x28\xb5\x2f\xfd"
        assert "Accept-Encoding" in headers["vary"]


def test_gzip_of_odd_parts(ask, stage):
    """Each part begins a chunk of its own; what goes out is one member all the same."""
    words = b" ".join(b"%d" % n for n in range(400_000))
    content = os.urandom(700_001) + words + b"x"
    status, answer, _ = ask(
        "POST", "/payloads?compression=gzip", b"",
        {"Upload-Complete": "?0", "Upload-Length": str(len(content))},
    )  # fmt: skip
    assert status == 201
    ends = [1, 2, 1000, 300_001, 300_002, 700_000, 2_000_000, len(content) - 1, len(content)]
    for offset, end in zip([0, *ends], ends):
        status, _, body = ask(
            "PATCH", answer["location"], content[offset:end], {"Upload-Offset": str(offset)}
        )
        assert status == (200 if end == len(content) else 204), body
    payload = answer["location"].rpartition("/")[2]
    assert stage.value("SELECT chunks FROM herald.payloads WHERE id = %s", payload) > len(ends)
    path = f"/messages/{send(stage, payload)}"

    compressed = {"Accept-Encoding": "gzip"}
    status, headers, body = ask("GET", path, headers=compressed)
    assert status == 200 and headers["content-encoding"] == "gzip"
    assert only_gzip_member(body) == content
    assert headers["etag"] == f'"{checksum(content)}-gzip"'
    status, head, _ = ask("HEAD", path, headers=compressed)
    assert status == 200 and head == headers and int(head["content-length"]) == len(body)
    status, again, body = ask("GET", path, headers=compressed | {"If-None-Match": headers["etag"]})
    assert status == 304 and body == b"" and again["etag"] == headers["etag"]
    assert ask("GET", path, headers={"If-None-Match": headers["etag"]})[0] == 200
    status, headers, body = ask("GET", path, headers=compressed | {"Range": "bytes=300000-2000000"})
    assert status == 206 and "content-encoding" not in headers
    assert body == content[300_000:2_000_001]


def test_gzip_in_constant_memory(own_notifier, stage, large):
    notifier = own_notifier()
    with Http(notifier) as ask:
        status, _, body = ask("POST", "/payloads?compression=gzip", large)
        assert status == 201
        path = f"/messages/{send(stage, json.loads(body)['payload'])}"
        received = hashlib.sha256()

        def download():
            ask.connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
            response = ask.connection.getresponse()
            inflate = zlib.decompressobj(31)
            while part := response.read(1 << 16):
                received.update(inflate.decompress(part))
            assert inflate.eof and inflate.unused_data == b""

        assert growth(notifier, download) < kGrowth
    assert received.digest() == hashlib.sha256(large).digest()


def test_chunks(ask, stage):
    def pieces():
        for n in range(50):
            yield bytes([n]) * (n * 1000 + 1)

    content = b"".join(pieces())
    status, _, body = ask("POST", "/payloads", pieces(), encode_chunked=True,
                          headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    assert status == 201 and json.loads(body)["checksum"] == checksum(content)
    message = send(stage, json.loads(body)["payload"])
    assert ask("GET", f"/messages/{message}")[2] == content


def test_head_ranges_and_conditions(ask, stage):
    content = os.urandom(2_000_000)
    path = f"/messages/{send(stage, upload(ask, content))}"
    status, head, body = ask("HEAD", path)
    assert status == 200 and body == b"" and int(head["content-length"]) == len(content)
    assert head["accept-ranges"] == "bytes" and head["repr-digest"] == digest_field(content)
    assert head["content-disposition"].startswith("attachment")
    assert head["x-content-type-options"] == "nosniff" and "sandbox" in head["content-security-policy"]
    for field, part in [
        ("bytes=0-0", content[:1]),
        ("bytes=262143-262144", content[262143:262145]),
        ("bytes=1000000-", content[1_000_000:]),
        ("bytes=-10", content[-10:]),
        ("bytes=1999999-99999999", content[-1:]),
    ]:
        status, headers, body = ask("GET", path, headers={"Range": field})
        assert status == 206 and body == part
        assert headers["content-range"].endswith(f"/{len(content)}")
    status, headers, _ = ask("GET", path, headers={"Range": "bytes=2000000-"})
    assert status == 416 and headers["content-range"] == "bytes */2000000"
    assert ask("GET", path, headers={"Range": "bytes=0-1,5-6"})[0] == 200
    assert ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": head["etag"]})[0] == 206
    assert ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": '"x"'})[0] == 200
    status, headers, body = ask("GET", path, headers={"If-None-Match": f'"x", W/{head["etag"]}'})
    assert status == 304 and body == b"" and headers["etag"] == head["etag"]
    assert ask("GET", path, headers={"If-Match": '"x"'})[0] == 412


def test_inline_messages_are_envelopes_as_before(ask, stage):
    message = stage.publish(stage.topic(), {"a": 1})
    status, headers, body = ask("GET", f"/messages/{message}")
    assert status == 200 and headers["content-type"] == "application/json"
    assert json.loads(body)["content"] == {"a": 1}


async def test_a_client_hears_of_a_payload_and_fetches_it(stage, ask):
    topic = stage.topic()
    payload = upload(ask, b"<script>", content_type="text/html")
    async with Client(stage.notifier) as client:
        await client.subscribe(topic)
        frame = await client.ask(op="send", topic=topic, payload_id=payload)
        assert frame["op"] == "ok", frame
        message = await client.message()
    assert message["id"] == frame["message"] and "content" not in message
    assert message["ref"]["checksum"] == checksum(b"<script>")
    status, headers, body = ask("GET", message["ref"]["href"])
    assert status == 200 and body == b"<script>" and headers["content-type"] == "text/html"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "nonsense"}, 400),
        ({"Repr-Digest": digest_field(b"other")}, 422),
        ({"Content-Digest": digest_field(b"other")}, 422),
        ({"Content-Digest": "sha-512=:AA==:"}, 400),
        ({"Upload-Length": "7"}, 400),
        ({"Upload-Complete": "1"}, 400),
        ({"Expect": "miracles"}, 417),
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
    ids=str,
)
def test_refused_uploads(ask, headers, status):
    answer = ask("POST", "/payloads", b"hello", headers)
    assert answer[0] == status, answer
    assert json.loads(answer[2])["error"]["code"]


def test_digests_that_are_right(ask):
    field = digest_field(b"hello")
    upload(ask, b"hello", Repr_Digest=field)
    upload(ask, b"hello", Content_Digest=field)


def test_a_wrong_digest_of_a_large_upload(ask, stage):
    content = os.urandom(3_000_000)
    before = stage.value("SELECT count(*) FROM herald.payloads WHERE state = 'pending'")
    status, _, _ = ask("POST", "/payloads", content, {"Repr-Digest": digest_field(b"")})
    assert status == 422
    wait_until(
        lambda: stage.value("SELECT count(*) FROM herald.payloads WHERE state = 'pending'") == before,
        what="the upload's end",
    )


def test_payloads_that_are_not_there(ask):
    nobody = uuid.UUID(int=1)
    assert ask("HEAD", f"/payloads/{nobody}")[0] == 404
    assert ask("PATCH", f"/payloads/{nobody}", b"x", {"Upload-Offset": "0"})[0] == 404
    assert ask("HEAD", "/payloads/x")[0] == 400
    status, headers, _ = ask("GET", f"/payloads/{nobody}")
    assert status == 405 and headers["allow"] == "HEAD, PATCH, DELETE"
    assert ask("DELETE", f"/payloads/{nobody}")[0] == 404
    status, headers, _ = ask("GET", "/payloads")
    assert status == 405 and headers["allow"] == "POST"


def test_an_upload_is_given_up(ask):
    _, headers, _ = ask("POST", "/payloads", b"hello", {"Upload-Complete": "?0"})
    place = headers["location"]
    assert ask("DELETE", place)[0] == 204
    assert ask("HEAD", place)[0] == 410
    assert ask("PATCH", place, b" world", {"Upload-Offset": "5"})[0] == 410
    assert ask("DELETE", place)[0] == 409
    payload = upload(ask, b"complete")
    assert ask("DELETE", f"/payloads/{payload}")[0] == 409
    assert state_of(ask, payload) == (8, True)


def test_too_large(stage, own_notifier):
    stage.connection.execute(f"ALTER DATABASE {stage.database} SET herald.max_payload = '2MB'")
    try:
        notifier = own_notifier()
        with Http(notifier) as ask:
            assert ask("POST", "/payloads", b"x" * (3 << 20))[0] == 413
        with Http(notifier) as ask:
            pieces = (b"x" * 100_000 for _ in range(30))
            status, _, _ = ask("POST", "/payloads", pieces, {"Transfer-Encoding": "chunked"},
                               encode_chunked=True)  # fmt: skip
            assert status == 413
        # It can be refused before it is sent.
        with Wire(notifier) as wire:
            wire.request("/payloads", {"Content-Length": 3 << 20, "Expect": "100-continue"}, "POST")
            assert wire.response()[0] == 413 and wire.ended()
        with Http(notifier) as ask:
            upload(ask, b"x" * (2 << 20))
    finally:
        stage.connection.execute(f"ALTER DATABASE {stage.database} RESET herald.max_payload")


def begin(ask, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer, body = ask("POST", "/payloads", b"", {"Upload-Complete": "?0"} | headers)
    assert status == 201, body
    return answer["location"].rpartition("/")[2]


def test_an_upload_that_breaks_again_and_again(stage, large):
    """Everything that arrived counts, whatever ended the connection."""
    with Http(stage.notifier) as ask:
        payload = begin(ask, Upload_Length=str(len(large)))
        offset = 0
        for cut in (300_000, 25_000_000, 1, 40_000_000):
            with Wire(stage.notifier) as wire:
                wire.request(
                    f"/payloads/{payload}",
                    {"Upload-Offset": offset, "Content-Length": len(large) - offset},
                    "PATCH",
                )
                wire.send(large[offset : offset + cut])
                wire.socket.shutdown(socket.SHUT_WR)
                assert wire.response()[0] == 400
            wait_until(lambda: state_of(ask, payload)[0] == offset + cut, what="the rest")
            offset += cut
        status, headers, _ = ask("PATCH", f"/payloads/{payload}", b"x", {"Upload-Offset": "0"})
        assert status == 409 and int(headers["upload-offset"]) == offset
    with Http(stage.notifier) as ask:
        status, _, body = ask(
            "PATCH", f"/payloads/{payload}", large[offset:],
            {"Upload-Offset": str(offset), "Repr-Digest": digest_field(large)},
        )  # fmt: skip
        assert status == 200 and json.loads(body)["checksum"] == checksum(large)
        assert state_of(ask, payload) == (len(large), True)


def test_a_download_that_breaks_is_resumed(ask, stage, large):
    path = f"/messages/{send(stage, upload(ask, large))}"
    with Wire(stage.notifier, receive_buffer=65536) as wire:
        wire.request(path)
        got = bytearray()
        while len(got) < 10_000_000:
            got += wire.socket.recv(1 << 16)
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    etag = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"ETag")][0]
    status, _, rest = ask(
        "GET", path, headers={"Range": f"bytes={len(body)}-", "If-Range": etag.decode()}
    )
    assert status == 206 and body + rest == large


def test_a_slow_reader_costs_little_memory(own_notifier, stage, large):
    notifier = own_notifier()
    with Http(notifier) as ask:
        path = f"/messages/{send(stage, upload(ask, large))}"

    def read_slowly():
        with Wire(notifier, receive_buffer=4096) as wire:
            wire.request(path)
            received = 0
            while received < 20_000_000:
                received += len(wire.socket.recv(4096))
                if received % 1_000_000 < 4096:  # turns of the loop in which it could run ahead
                    for _ in range(5):
                        notifier.http("/healthz")

    assert growth(notifier, read_slowly) < kGrowth


def test_many_clients_that_leave_in_the_middle(own_notifier, stage, large):
    notifier = own_notifier()
    with Http(notifier) as ask:
        path = f"/messages/{send(stage, upload(ask, large))}"
    for n in range(20):
        with Wire(notifier) as wire:
            wire.request(path)
            wire.socket.recv(100_000)
        with Wire(notifier) as wire:
            wire.request("/payloads", {"Content-Length": 50_000_000}, "POST")
            wire.try_send(large[: 1_000_000 + n])

    def idle():
        return json.loads(notifier.http("/ws/stats")[1])["transfers"] == 0

    wait_until(idle, what="the end of all transfers")
    with Http(notifier) as ask:
        assert hashlib.sha256(ask("GET", path)[2]).digest() == hashlib.sha256(large).digest()


def test_the_notifier_stops_in_the_middle_of_both(own_notifier, stage, large):
    notifier = own_notifier()
    with Http(notifier) as ask:
        path = f"/messages/{send(stage, upload(ask, large))}"
        payload = begin(ask)
    with Wire(notifier, receive_buffer=4096) as down, Wire(notifier) as up:
        down.request(path)
        assert down.socket.recv(1000)
        up.request(f"/payloads/{payload}", {"Upload-Offset": 0, "Content-Length": kLarge}, "PATCH")
        up.send(large[:5_000_000])
        notifier.signal(signal.SIGTERM)
        status, headers, _ = up.response()
        assert status == 503 and headers["location"] == f"/payloads/{payload}"
        assert down.ended()
    notifier.stop()
    notifier.start()
    with Http(notifier) as ask:
        offset, complete = state_of(ask, payload)
        assert offset <= 5_000_000 and not complete
        status, _, body = ask(
            "PATCH", f"/payloads/{payload}", large[offset:], {"Upload-Offset": str(offset)}
        )
        assert status == 200 and json.loads(body)["checksum"] == checksum(large)


@pytest.mark.parametrize("how", ["kill", "backend"])
def test_an_upload_survives_what_is_killed(own_notifier, stage, how):
    """What HEAD said before is still there, or HEAD says less; resumed, the whole is right."""
    notifier = own_notifier()
    content = os.urandom(20_000_000)
    with Http(notifier) as ask:
        payload = begin(ask)
    with Wire(notifier) as wire:
        wire.request(
            f"/payloads/{payload}", {"Upload-Offset": 0, "Content-Length": len(content)}, "PATCH"
        )
        wire.send(content[:10_000_000])
        wait_until(
            lambda: stage.value("SELECT bytes FROM herald.payloads WHERE id = %s", payload) > 0,
            what="the first piece",
        )
        if how == "kill":
            notifier.restart(kill=True)
        else:
            stage.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname ="
                " current_database() AND pid <> pg_backend_pid()"
            )
            wire.try_send(content[10_000_000:])
            try:
                assert wire.response()[0] in (200, 503)
            except (EOFError, ConnectionResetError):
                pass
    status = 0
    with Http(notifier) as ask:
        while status != 200:
            offset, complete = state_of(ask, payload)
            if complete:
                break
            status, _, body = ask(
                "PATCH", f"/payloads/{payload}", content[offset:], {"Upload-Offset": str(offset)}
            )
            assert status in (200, 409, 503), body
    [[stored]] = stage.rows("SELECT checksum FROM herald.payloads WHERE id = %s", payload)
    assert stored == checksum(content)


kHostile = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "no size": b"Transfer-Encoding: chunked\r\n\r\nhello\r\n",
    "a bare line feed": b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "garbage after a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "a huge chunk": b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    "endless trailers": b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
    "an endless extension": b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1_000_000,
    "costly chunks": b"Transfer-Encoding: chunked\r\n\r\n" + b"1;xxxxxxxxxxxxxxxxxxxxxx\r\na\r\n" * 50_000,
}


@pytest.mark.parametrize("name", kHostile)
def test_hostile_bodies(stage, name):
    with Wire(stage.notifier) as wire:
        wire.try_send(b"POST /payloads HTTP/1.1\r\nHost: localhost\r\n" + kHostile[name])
        assert wire.response()[0] in (400, 413, 431, 501)
        assert wire.ended()
    assert stage.notifier.http("/healthz")[0] == 200


def test_a_body_that_stops_coming(own_notifier):
    notifier = own_notifier("--ping-interval", "0.1", "--idle-timeout", "0.3")
    with Wire(notifier) as wire:
        wire.request("/payloads", {"Content-Length": 100}, "POST")
        wire.send(b"hello")
        assert wire.response()[0] == 408 and wire.ended()


def test_a_body_that_trickles_in(own_notifier):
    """It is slow, but it moves: longer than the idle time-out."""
    notifier = own_notifier("--ping-interval", "0.1", "--idle-timeout", "4")
    with Wire(notifier) as wire:
        wire.request("/payloads", {"Content-Length": 100}, "POST")
        wire.socket.settimeout(0.06)
        for _ in range(99):
            wire.send(b"x")
            with pytest.raises(TimeoutError):
                wire.socket.recv(1)
        wire.socket.settimeout(30)
        wire.send(b"x")
        assert wire.response()[0] == 201


def test_transfers_are_bounded(own_notifier):
    notifier = own_notifier("--max-transfers", "1")
    with Wire(notifier) as first:
        first.request("/payloads", {"Content-Length": 5}, "POST")
        wait_until(lambda: json.loads(notifier.http("/ws/stats")[1])["transfers"] == 1, what="it")
        with Http(notifier) as ask:
            status, headers, _ = ask("POST", "/payloads", b"hello")
            assert status == 503 and headers["retry-after"]
        first.send(b"hello")
        assert first.response()[0] == 201


def test_a_damaged_chunk_is_never_sent(ask, stage):
    content = os.urandom(2_000_000)
    payload = upload(ask, content)
    path = f"/messages/{send(stage, payload)}"
    segment = stage.value("SELECT segment FROM herald.payloads WHERE id = %s", payload)
    stage.connection.execute(
        f"UPDATE herald.payload_{segment} SET data = set_byte(data, 100, 255 - get_byte(data, 100))"
        " WHERE payload = %s AND start = 1048576", [payload],
    )  # fmt: skip
    assert ask("GET", path, headers={"Range": "bytes=0-1000"})[0] == 206
    status, _, body = ask("GET", path, headers={"Range": "bytes=1048576-"})
    assert status == 500 and b"damaged" in body
    with Wire(stage.notifier) as wire:
        wire.request(path)
        assert wire.ended()
        _, _, sent = bytes(wire.buffer).partition(b"\r\n\r\n")
    assert len(sent) < len(content) and content.startswith(sent)
