"""Logs into a pipe that nobody may be emptying: lines are lost then, and nothing waits."""

from __future__ import annotations

import logging
import os
import stat
from typing import TextIO


class PipeHandler(logging.Handler):
    """Writes lines to a pipe, and tells how many were lost once there is room again."""

    def __init__(self, descriptor: int) -> None:
        """Write to a descriptor that does not block, and own it."""
        super().__init__()
        self._descriptor = descriptor
        self._lost = 0
        # Of a line that is longer than the room there was; it goes first.
        self._rest = b""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it as lost."""
        try:
            if self._lost and self._write(self.format(self._told())):
                self._lost = 0
            if self._lost or not self._write(self.format(record)):
                self._lost += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
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
        self._rest = whole = (line + "\n").encode(errors="backslashreplace")
        self._push()
        if self._rest is whole:
            self._rest = b""
            return False
        return True

    def _push(self) -> bool:
        """Write what is left of a line; True if all of it went out."""
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except OSError:
            # Full, or nobody reads any more.
            return False
        return not self._rest


def handler_of(stream: TextIO) -> logging.Handler:
    """Return the handler for a stream: one that never waits if the stream is a pipe."""
    descriptor = unblocked(stream)
    return logging.StreamHandler(stream) if descriptor is None else PipeHandler(descriptor)


def unblocked(stream: TextIO) -> int | None:
    """Open a stream's pipe anew, without blocking; None if it is none, or cannot be opened.

    Anew, because others who have the same descriptor, such as a shell, rely on it to block.
    """
    try:
        descriptor = stream.fileno()
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return None
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
