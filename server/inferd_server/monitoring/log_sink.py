"""Where log lines go: nothing waits for it, and lines are lost and counted where there is no room.

A pipe, a socket or a terminal takes no more once nobody empties it: `| logger`, a service manager,
a terminal that was stopped with Ctrl-S.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import threading
from collections import deque
from contextlib import suppress
from typing import Protocol, TextIO

MOST_WAITING = 1 << 20
"""Bytes that may wait for a thread to write them."""
CLOSE_S = 0.5
"""Seconds that this thread gets at the end."""
CLEAR = "\r\x1b[K"
"""Source: ECMA-48, 8.3.41: to the beginning of the line, and erase to its end."""
SEND_S = struct.pack("ll", 0, 1000)
"""A thousandth of a second, as a timeval."""
OWN = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Sink(Protocol):
    """Takes bytes without waiting."""

    def write(self, data: bytes) -> int:
        """Take some of them, and return how many.

        Raises:
            OSError: there is no room, or nobody reads any more.
        """

    def close(self) -> None:
        """Take no more."""


class DescriptorSink:
    """A descriptor of our own that does not block, or that is a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        """Write."""
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Close it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SocketSink:
    """A socket, which cannot be opened anew: each write says that it must not wait."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self._socket = socket.socket(fileno=descriptor)

    def write(self, data: bytes) -> int:
        """Send."""
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class ThreadSink:
    """A descriptor that may block, and that others share: a thread of its own waits for it."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="log", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        """Let the thread write."""
        with self._changed:
            if self._closed or self._bytes + len(data) > MOST_WAITING:
                raise BlockingIOError
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify()
        return len(data)

    def close(self) -> None:
        """Write what waits, unless that takes long."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _live(self) -> None:
        while (data := self._next()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                # Nobody reads any more.
                break
        os.close(self._descriptor)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            data = self._waiting.popleft()
            self._bytes -= len(data)
            return data


class LineHandler(logging.Handler):
    """Writes lines to a sink, and tells how many were lost once there is room again."""

    def __init__(self, sink: Sink, terminal: bool = False) -> None:
        """Write to a sink, and own it; on a terminal a line may be shown below all others."""
        super().__init__()
        self._sink = sink
        self._lost = 0
        # Of a line that is longer than the room there was; it goes first.
        self._rest = b""
        self._clear = CLEAR if terminal else ""
        self._shown = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as lost."""
        try:
            if self._lost and self._write(self.format(self._told())):
                self._lost = 0
            if self._lost or not self._write(self.format(record)):
                self._lost += 1
        except Exception:
            self.handleError(record)

    def show(self, text: str) -> None:
        """Show a line below all others until another one is shown; on a terminal only."""
        if not self._clear:
            return
        self.acquire()
        try:
            self._shown = text
            if self._push():
                self._begin((self._clear + text).encode(errors="backslashreplace"))
        finally:
            self.release()

    def close(self) -> None:
        """Write no more."""
        self._sink.close()
        super().close()

    def _told(self) -> logging.LogRecord:
        told = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        record = logging.makeLogRecord(
            {**told, "msg": "log lines were lost: nobody took them", "lost": self._lost}
        )
        self.filter(record)
        return record

    def _write(self, line: str) -> bool:
        """Begin a line; False if there is no room."""
        if not self._push():
            return False
        whole = f"{self._clear}{line}\n{self._shown}"
        return self._begin(whole.encode(errors="backslashreplace"))

    def _begin(self, data: bytes) -> bool:
        self._rest = data
        self._push()
        if self._rest is data:
            self._rest = b""
            return False
        return True

    def _push(self) -> bool:
        """Write what is left of a line; True if all of it went out."""
        try:
            if self._rest:
                self._rest = self._rest[self._sink.write(self._rest) :]
        except OSError:
            # Full, or nobody reads any more.
            return False
        return not self._rest


def handler_of(stream: TextIO | None) -> logging.Handler:
    """Return the handler for a stream, one that never waits; None: nothing is written."""
    if stream is None:
        return logging.NullHandler()
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return logging.StreamHandler(stream)
    return LineHandler(sink_of(descriptor), stream.isatty())


def sink_of(descriptor: int) -> Sink:
    """Return a sink that never waits and writes where a descriptor does."""
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return DescriptorSink(os.dup(descriptor))
    if stat.S_ISSOCK(kind):
        return SocketSink(os.dup(descriptor))
    try:
        # Anew, because others who have the same one, such as a shell, rely on it to block.
        return DescriptorSink(os.open(f"/proc/self/fd/{descriptor}", OWN))
    except OSError:
        # As where another user made the pipe.
        return ThreadSink(os.dup(descriptor))


def never_wait(descriptor: int) -> None:
    """Have writes to a descriptor fail that would wait: native code must not be held up by them.

    What it writes there goes straight to where the descriptor leads, so that its last words are
    not lost with the process. A pipe that another user made stays as it is.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        # It cannot be opened anew, and whoever shares it may rely on it to wait a little.
        with socket.socket(fileno=os.dup(descriptor)) as shared:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_S)
    elif not stat.S_ISREG(kind):
        with suppress(OSError):
            own = os.open(f"/proc/self/fd/{descriptor}", OWN)
            os.dup2(own, descriptor)
            os.close(own)
