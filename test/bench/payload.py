"""Payloads: 100 MB that cannot be compressed, up and down over loopback, against nginx with a file.

Both are asked by the same client in the same way, one transfer at a time, alternating. nginx receives
by PUT (its dav module: into a file beside the target, then a rename) and serves with sendfile. We
receive by POST /payloads, in the end durable, and serve the bytes of the content, decompressed and
verified, and as they are stored. How much the notifier's peak memory grew is beside it.

Two limits that no program above PostgreSQL can pass are measured, too: how fast one core computes the
SHA-256 that every upload has, and how fast a client receives values that cost the server nothing.
"""

import hashlib
import json
import os
import shutil
import socket
import time

from common import alternate, heading, median, number, table, verdict
from herald import ROOT, Notifier, spawn, wait_until, work_directory

SIZE = 100_000_000
SPEED_AIM = 0.7
MEMORY_AIM = 8  # MiB

_NGINX = ROOT / ".build" / "nginx" / "usr" / "sbin" / "nginx"
_CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; sendfile on; tcp_nopush on; client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}; location / {{ dav_methods PUT; }} }}
}}
"""


class Nginx:
    def __enter__(self):
        self.host = "127.0.0.1"
        self.folder = work_directory("nginx")
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        configuration = self.folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(folder=self.folder, port=self.port))
        self.process = spawn([shutil.which("nginx") or _NGINX, "-c", configuration, "-p", self.folder])
        wait_until(self._answers, what="nginx")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def _answers(self):
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0


class Client:
    """One request a connection; megabytes a second, from the first byte sent to the last received."""

    def __init__(self, server):
        self.address = (server.host, server.port)
        self.buffer = bytearray(1 << 20)

    def upload(self, method, path, content):
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(self.address) as connection:
            start = time.monotonic()
            connection.sendall(head.encode())
            connection.sendall(content)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            seconds = time.monotonic() - start
        if b" 201 " not in answer[:20] and b" 204 " not in answer[:20]:
            raise RuntimeError(answer.decode())
        return len(content) / seconds / 1e6, answer.partition(b"\r\n\r\n")[2]

    def download(self, path, size, headers=""):
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        with socket.create_connection(self.address) as connection:
            start = time.monotonic()
            connection.sendall(request.encode())
            received = 0
            while count := connection.recv_into(self.buffer):
                received += count
            seconds = time.monotonic() - start
        if received < size:
            raise RuntimeError(f"{received} bytes of {size}")
        return size / seconds / 1e6


def _growth(notifier, work):
    """The result of `work` and by how many MiB the notifier's peak memory grew."""
    with open(f"/proc/{notifier.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    before = notifier.rss()
    result = work()
    with open(f"/proc/{notifier.pid}/status", encoding="ascii") as file:
        [peak] = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")]
    return result, (peak - before) / (1 << 20)


def _digest_speed(content):
    start = time.monotonic()
    hashlib.sha256(content).digest()
    return len(content) / (time.monotonic() - start) / 1e6


def _protocol_speed(connection, size):
    """Of values as large as chunks, which the server has in memory."""
    value = 256 * 1024
    with connection.cursor(binary=True) as cursor:
        start = time.monotonic()
        rows = cursor.stream(
            "SELECT value FROM (SELECT decode(repeat('00', %s), 'hex') OFFSET 0) AS v (value),"
            " generate_series(1, %s)",
            [value, size // value],
        )
        received = sum(len(row[0]) for row in rows)
        return received / (time.monotonic() - start) / 1e6


def measure(cluster, quick):
    rounds, size = (1, SIZE // 4) if quick else (5, SIZE)
    content = os.urandom(size)
    database = cluster.create_database()
    grown = []
    with Nginx() as nginx, cluster.connect(database) as connection:
        theirs = Client(nginx)

        def ours(work):
            # A new one each time: its memory is what one transfer takes.
            with Notifier(cluster.conninfo(database)) as notifier:
                result, growth = _growth(notifier, lambda: work(Client(notifier)))
            grown.append(growth)
            return result

        _, answer = ours(lambda client: client.upload("POST", "/payloads", content))
        stored = json.loads(answer)
        if stored["checksum"] != "sha256:" + hashlib.sha256(content).hexdigest():
            raise RuntimeError("another content was stored")
        [[message]] = connection.execute(
            "SELECT herald.send_payload(%s, topic => 'bench:payload')", [stored["payload"]]
        ).fetchall()
        theirs.upload("PUT", "/file", content)
        path = f"/messages/{message}"

        up, nginx_up = alternate(
            rounds,
            lambda: ours(lambda client: client.upload("POST", "/payloads", content)[0]),
            lambda: theirs.upload("PUT", "/file", content)[0],
        )
        down, passed, nginx_down, protocol, digest = alternate(
            rounds,
            lambda: ours(lambda client: client.download(path, size)),
            lambda: ours(lambda client: client.download(path, size, "Accept-Encoding: zstd\r\n")),
            lambda: theirs.download("/file", size),
            lambda: _protocol_speed(connection, size),
            lambda: _digest_speed(content),
        )
    heading(
        f"Payloads: {number(size / 1e6)} MB that cannot be compressed, one transfer at a time, MB/s",
        f"{rounds} round(s) each, alternating; nginx writes a file, without flushing it",
    )
    rows = []
    for name, mine, rival, aim in (
        ("upload", up, nginx_up, SPEED_AIM),
        ("download", down, nginx_down, SPEED_AIM),
        ("download as stored (zstd)", passed, nginx_down, SPEED_AIM),
        ("limit of uploads: SHA-256 on one core", digest, nginx_up, None),
        ("limit of downloads: values from the server's memory", protocol, nginx_down, None),
    ):
        ratio = median(mine) / median(rival)
        rows.append([name, number(median(mine)), number(median(rival)), number(ratio, 2),
                     verdict(ratio, at_least=aim) if aim else ""])  # fmt: skip
    table(["", "pg_herald", "nginx", "ratio", "aim"], rows)
    print(f"    the notifier grew by {max(grown):.1f} MiB at most: {verdict(max(grown), at_most=MEMORY_AIM)}")
    cluster.drop_database(database)
