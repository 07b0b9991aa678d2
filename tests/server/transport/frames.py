"""A client of HTTP/2 frames, for what gRPC's own client hides: pings, GOAWAY, bad manners.

Source: RFC 9113, 4.1 (frames), 6 (their types); RFC 7541, 6.2.2 (literal header fields).
"""

from __future__ import annotations

import fcntl
import socket
import termios
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from tests.server.transport.client import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
ACK, END_STREAM, END_HEADERS = 1, 1, 4
ENHANCE_YOUR_CALM = 11


@dataclass(frozen=True)
class Frame:
    """One frame as it arrived."""

    kind: int
    flags: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return b"".join(
        (len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload)
    )


def request(path: str, stream: int, message: bytes = b"") -> bytes:
    """Return the frames of a whole unary call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(literal(name) + literal(value, b"") for name, value in fields.items())
    body = b"\0" + len(message).to_bytes(4, "big") + message
    headers = frame(HEADERS, END_HEADERS, stream, block)
    return headers + frame(DATA, END_STREAM, stream, body)


def literal(text: str, prefix: bytes = b"\0") -> bytes:
    """Return a short header field's name, or its value without a prefix."""
    return prefix + bytes((len(text),)) + text.encode()


BEGUN = PREFACE + frame(SETTINGS)


class Connection:
    """A connection that acknowledges nothing by itself."""

    def __init__(self, raw: socket.socket, begun: bytes) -> None:
        self._raw = raw
        self._reader = raw.makefile("rb")
        self.send(begun)

    def send(self, data: bytes) -> None:
        """Send bytes; they are in the kernel when this returns."""
        self._raw.sendall(data)

    def frames(self) -> Iterator[Frame]:
        """Yield what arrives until the server closes the connection."""
        while len(header := self._reader.read(9)) == 9:
            payload = self._reader.read(int.from_bytes(header[:3], "big"))
            yield Frame(header[3], header[4], payload)

    def first_frames(self) -> list[Frame]:
        """Return the first frame; none if the server closed the connection before it."""
        with suppress(ConnectionResetError):
            return list(islice(self.frames(), 1))
        return []

    def await_frame(self, kind: int, flags: int = 0) -> Frame:
        """Return the next frame of a kind with these flags."""
        return next(f for f in self.frames() if f.kind == kind and f.flags & flags == flags)

    def await_end(self) -> None:
        """Pass over what arrives until the server closes the connection."""
        with suppress(ConnectionResetError):
            while self._reader.read1():
                pass

    def await_arrival(self) -> None:
        """Wait until all that was sent lies in the server's socket, or was read from it.

        Source: unix(7) and tcp(7), SIOCOUTQ.
        """
        until = time.monotonic() + PATIENCE
        while array("i", fcntl.ioctl(self._raw, termios.TIOCOUTQ, bytes(4)))[0]:
            assert time.monotonic() < until

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._raw.close()


@contextmanager
def connected(address: str, begun: bytes = BEGUN) -> Iterator[Connection]:
    """Connect to "host:port" and send some bytes, which begin HTTP/2 unless given."""
    host, _, port = address.rpartition(":")
    connection = Connection(socket.create_connection((host, int(port)), PATIENCE), begun)
    try:
        yield connection
    finally:
        connection.close()
