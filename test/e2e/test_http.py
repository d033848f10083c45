"""HTTP: every endpoint, requests that are malformed, too long or too slow, and who may ask."""

import json
import subprocess
import uuid
from urllib.parse import quote

import pytest

from client import Client
from herald import build_file
from wire import Wire


def error_of(body):
    error = json.loads(body)["error"]
    assert error["code"] and error["message"]
    return error


def test_health(stage):
    assert stage.notifier.http("/healthz")[0] == 200
    assert stage.notifier.http("/readyz")[0] == 200


def test_the_page_and_its_parts(stage):
    scripts = ["/app.js", "/connection.js", "/dom.js", "/messages.js"]
    kinds = {"/": "text/html", "/style.css": "text/css", "/icon.svg": "image/svg+xml"}
    kinds |= dict.fromkeys(scripts, "text/javascript")
    for path, kind in kinds.items():
        with Wire(stage.notifier) as wire:
            wire.request(path)
            status, headers, body = wire.response()
        assert status == 200 and body
        assert headers["content-type"].startswith(kind)
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src" in policy and "unsafe" not in policy and "*" not in policy


def test_head_has_no_body(stage):
    with Wire(stage.notifier) as wire:
        wire.request("/healthz", method="HEAD")
        wire.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert wire.ended()
        head, _, rest = bytes(wire.buffer).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and rest.startswith(b"HTTP/1.1 200")


def test_several_requests_on_one_connection(stage):
    with Wire(stage.notifier) as wire:
        for path in ("/healthz", "/nowhere", "/ws/stats", "/healthz"):
            wire.request(path)
            assert wire.response()[0] == (404 if path == "/nowhere" else 200)


def test_messages_of_a_topic(stage):
    topic = stage.topic("http:ü 😀/%2F?#")
    ids = [stage.publish(topic.replace("?", ""), n) for n in range(25)]
    topic = topic.replace("?", "")
    path = f"/topics/{quote(topic, safe='')}/messages"
    first = stage.json(f"{path}?max=10")
    assert [m["id"] for m in first["messages"]] == ids[:10]
    assert first["pos"] == first["messages"][-1]["pos"]
    rest = stage.json(f"{path}?after={first['pos']}&max=100")
    assert [m["id"] for m in rest["messages"]] == ids[10:]
    assert rest["pos"] >= rest["messages"][-1]["pos"]
    end = stage.json(f"{path}?after={rest['pos']}")
    assert end["messages"] == [] and end["pos"] >= rest["pos"]
    assert [m["id"] for m in stage.json(path)["messages"]] == ids


def test_messages_of_a_pattern(stage):
    base = stage.topic("http")
    ids = [stage.publish(f"{base}:{name}") for name in ("a", "b")]
    answer = stage.json(f"/topics/{quote(base + ':*', safe='')}/messages")
    assert [m["id"] for m in answer["messages"]] == ids


def test_pages_join_without_loss(stage):
    topic = stage.topic()
    ids = [stage.publish(topic, n) for n in range(23)]
    seen, pos = [], 0
    while page := (answer := stage.json(f"/topics/{topic}/messages?after={pos}&max=4"))["messages"]:
        seen += [m["id"] for m in page]
        pos = answer["pos"]
    assert seen == ids


def test_gap_in_the_messages_of_a_topic(stage):
    topic = stage.topic()
    stage.publish(topic)
    [before] = stage.positions(topic)
    stage.value("SELECT herald.drop_topic(%s)::text", topic)
    kept = stage.publish(topic)
    answer = stage.json(f"/topics/{topic}/messages")
    assert answer["gap"]["why"] == "dropped" and answer["gap"]["to"] >= before
    assert [m["id"] for m in answer["messages"]] == [kept]


@pytest.mark.parametrize(
    "path",
    [
        "/topics/a%5Bb%5D/messages", "/topics//messages", f"/topics/{'a' * 201}/messages",
        "/topics/a%00b/messages", "/topics/a%FFb/messages", "/topics/a%zzb/messages",
        "/topics/t/messages?after=x", "/topics/t/messages?after=-1", "/topics/t/messages?max=0",
        "/topics/t/messages?max=10001", "/topics/t/messages?max=1.5",
        "/topics/t/messages?after=99999999999999999999", "/messages/x", "/messages/0198",
        "/messages/%27%3B--",
    ],
)  # fmt: skip
def test_bad_parameters(stage, path):
    status, body = stage.notifier.http(path)
    assert status == 400 or (status == 404 and path.startswith("/topics//"))
    error_of(body)


def test_one_message(stage):
    identifier = stage.publish(stage.topic())
    status, body = stage.notifier.http(f"/messages/{identifier}")
    assert status == 200 and json.loads(body)["id"] == identifier
    assert stage.notifier.http(f"/messages/{identifier.upper()}")[1] == body


@pytest.mark.parametrize(
    "path",
    [f"/messages/{uuid.UUID(int=1)}", "/nothing", "/ws/connections/99999999", "/..%2fetc/passwd"],
)
def test_not_found(stage, path):
    status, body = stage.notifier.http(path)
    assert status == 404
    error_of(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_methods_that_do_not_exist_here(stage, method):
    body = b"x" if method == "POST" else None
    status, _ = stage.notifier.http("/healthz", method=method, body=body)
    assert status in (404, 405, 501)


async def test_connections(stage):
    topic = stage.topic()
    async with Client(stage.notifier, user="ü", agent="a\"b", workspace="w") as client:
        await client.subscribe(topic)
        await client.subscribe(f"{topic}*")
        await client.until(stage.publish(topic))
        [mine] = [c for c in stage.json("/ws/connections")["connections"] if c["user"] == "ü"]
        assert mine["agent"] == 'a"b' and mine["workspace"] == "w"
        assert mine["subscriptions"] == 2 and mine["received"] == 2 and mine["sent"] == 1
        assert mine["buffered"] == 0 and mine["connected_at"] and "127.0.0.1" in mine["remote"]
        one = stage.json(f"/ws/connections/{mine['id']}")
        assert sorted(one["topics"]) == sorted([topic, f"{topic}*"])
        assert isinstance(stage.json("/ws/stats"), dict)
    while stage.notifier.http(f"/ws/connections/{mine['id']}")[0] != 404:
        pass


kHugeHeader = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"
kMalformed = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "bad version": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "bad method": b"G\x00T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space in a header name": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "two lengths": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "negative length": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "long header": kHugeHeader,
    "long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    + b"X: y\r\n" * 20_000
    + b"\r\n",
}


@pytest.mark.parametrize("name", kMalformed)
def test_malformed_requests(stage, name):
    with Wire(stage.notifier) as wire:
        wire.try_send(kMalformed[name])
        try:
            status, _, _ = wire.response()
        except (EOFError, ConnectionResetError):
            assert name in ("long header", "long path", "many headers"), "ended without an answer"
        else:
            assert status in (400, 405, 413, 414, 421, 431, 501, 505)
            assert wire.ended()
    assert stage.notifier.http("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "keep-alive"}, 400),
    ],
    ids=str,
)
def test_bad_upgrades(stage, change, status):
    with Wire(stage.notifier) as wire:
        assert wire.upgrade(headers=change) in (status, 400, 426)


def test_plain_get_of_the_websocket_path(stage):
    assert stage.notifier.http("/ws/connect")[0] in (400, 426)


@pytest.mark.parametrize("query", ["user=%00", "user=%ff", f"user={'x' * 201}", "agent=%"])
def test_bad_names_at_the_upgrade(stage, query):
    with Wire(stage.notifier) as wire:
        assert wire.upgrade(f"/ws/connect?{query}") == 400


async def test_subprotocol(stage):
    async with Client(stage.notifier) as client:
        assert client.subprotocol == "herald.v1"
    with Wire(stage.notifier) as wire:
        assert wire.upgrade() == 101  # none offered: none required


kForeignOrigins = [
    "http://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1:1",
    "http://127.0.0.1.evil.example:{port}", "file://",
    "http://127.0.0.1:{port}@evil.example", "http://evil.example:{port}",
]  # fmt: skip


@pytest.mark.parametrize("origin", kForeignOrigins)
def test_foreign_origins_are_refused(stage, origin):
    with Wire(stage.notifier) as wire:
        assert wire.upgrade(headers={"Origin": origin.format(port=wire.port)}) == 403


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost"],
)
def test_own_origins_are_let_in(stage, host):
    with Wire(stage.notifier) as wire:
        host = host.format(port=wire.port)
        assert wire.upgrade(headers={"Origin": f"http://{host.lower()}"}, host=host) == 101
    with Wire(stage.notifier) as wire:
        assert wire.upgrade(host=host) == 101


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example",
        "10.0.0.1:{port}", "localhost@evil", "::1", "[::1",
    ],
)
def test_rebound_host_names_are_refused(stage, host):
    """A page of evil.example that resolves to 127.0.0.1 has the same origin as its Host."""
    with Wire(stage.notifier) as wire:
        host = host.format(port=wire.port)
        assert wire.upgrade(headers={"Origin": f"http://{host}"}, host=host) in (400, 421)
    with Wire(stage.notifier) as wire:
        wire.request("/ws/connections", host=host)
        assert wire.response()[0] in (400, 421)


def test_allowed_origins_and_hosts(stage, own_notifier):
    notifier = own_notifier("--allow-origin", "https://app.example", "--allow-host", "bus.example")
    with Wire(notifier) as wire:
        assert wire.upgrade(headers={"Origin": "https://app.example"}) == 101
    with Wire(notifier) as wire:
        assert wire.upgrade(host="bus.example:8080") == 101
    with Wire(notifier) as wire:
        assert wire.upgrade(headers={"Origin": "https://app.example.evil"}) == 403
    with Wire(notifier) as wire:
        assert wire.upgrade(host="other.example") == 421


def run_notifier(stage, *arguments):
    """Exit code and output of a notifier that is not expected to keep running."""
    conninfo = stage.cluster.conninfo(stage.database)
    ended = subprocess.run(
        [build_file("herald-notifier"), "--database", conninfo, *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_it_listens_on_loopback_only(stage, listen):
    code, output = run_notifier(stage, "--listen", listen)
    assert code != 0 and "loopback" in output.lower()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "127.0.0.1"], ["--listen", "127.0.0.1:99999"], ["--max-frame", "x"],
        ["--nonsense"], ["--pool-size", "0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_options_end_it_with_a_reason(stage, arguments):
    code, output = run_notifier(stage, *arguments)
    assert code != 0 and arguments[0] in output
