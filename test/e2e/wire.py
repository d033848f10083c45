"""Raw sockets for what no well-behaved client does: hand-made HTTP requests and WebSocket frames.

Blocking; every wait ends after kDeadline seconds with an error.
"""

import json
import os
import socket
import struct

kDeadline = 30

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def make_frame(opcode, payload=b"", fin=True, masked=True, reserved=0, length_code=None):
    """One frame. `length_code` forces 126 or 127 for a length that needs less."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    code = length_code or (size if size < 126 else 126 if size < 65536 else 127)
    head = struct.pack("!BB", first, mask_bit | code)
    if code == 126:
        head += struct.pack("!H", size)
    elif code == 127:
        head += struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    stream = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + hidden.to_bytes(size, "big")


def text_frame(content):
    """A text message with this JSON."""
    return make_frame(TEXT, json.dumps(content).encode())


class Wire:
    def __init__(self, notifier, receive_buffer=None):
        self.host, self.port = notifier.host, notifier.port
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(kDeadline)
        self.socket.connect((self.host, self.port))
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def try_send(self, data):
        """For data the other side may refuse to take to the end."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it answered is still to be read, and is what the test looks at

    def request(self, path, headers=None, method="GET", version="HTTP/1.1", host=None):
        lines = [f"{method} {path} {version}", f"Host: {host or f'{self.host}:{self.port}'}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def upgrade(self, path="/ws/connect", headers=None, host=None):
        """Asks for a WebSocket; gives the status."""
        self.request(
            path,
            {
                "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            } | (headers or {}),
            host=host,
        )  # fmt: skip
        return self.response()[0]

    def response(self):
        """Status, headers (lower case) and body of one HTTP response."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head = self._take(self.buffer.index(b"\r\n\r\n") + 4)
        status, *lines = head[:-4].decode().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = self._take(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, body

    def frame(self):
        """Opcode and payload of the next frame from the server, which sends no fragments."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, f"not a whole, unreserved frame: {first:#x}"
        assert not second & 0x80, "the server masked a frame"
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        return first & 0x0F, self._take(size)

    def close_code(self):
        """Reads on to the close frame; gives its code, None if the connection ends without one."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    return struct.unpack("!H", payload[:2])[0] if payload else 1005
        except (EOFError, ConnectionResetError):
            return None

    def ended(self):
        """Whether the server ends the connection (it waits for that; unread data is dropped)."""
        try:
            while True:
                self._more()
        except (EOFError, ConnectionResetError):
            return True

    def _take(self, size):
        while len(self.buffer) < size:
            self._more()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def _more(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError("the server ended the connection")
        self.buffer += data
