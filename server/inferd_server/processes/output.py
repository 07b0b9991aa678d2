"""What a process writes to its standard error by itself, as lines of the server's log.

Native code writes there: gRPC core, and whatever ends a process. The processes write their own
log elsewhere (`spawn`). The supervisor reads, because what a process said last must outlive it.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import NamedTuple

log = logging.getLogger(__name__)
LONGEST = 1 << 16
"""Bytes of a line; a longer one is logged in parts."""
LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
CORE = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ ([^\s\]]+:\d+)\] (.*)")
"""A line of gRPC core. Source: Abseil, log_format.cc: severity, month and day, time, thread,
file:line] message."""


class Said(NamedTuple):
    """A line, as it is logged."""

    level: int
    message: str
    text: str
    source: str = ""
    """File and line of gRPC core."""


def read_line(line: str) -> Said:
    """Tell a line of gRPC core from any other."""
    found = CORE.fullmatch(line)
    if found is None:
        return Said(logging.ERROR, "a process wrote to its standard error", line)
    severity, source, text = found.groups()
    return Said(LEVELS[severity], "gRPC core says", text, source)


class Output:
    """The reading end of a process's standard error; a thread logs what comes until its end."""

    def __init__(self, child: str, descriptor: int) -> None:
        """Begin to read.

        Args:
            child: name of the process.
            descriptor: of a pipe; closed at its end.
        """
        self._child = child
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read, name=f"{child} output", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait until all is logged that a process wrote which has ended; False if it takes long."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _read(self) -> None:
        rest = b""
        with os.fdopen(self._descriptor, "rb", buffering=0) as pipe:
            while data := pipe.read(LONGEST):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) >= LONGEST:
                    lines, rest = [*lines, rest], b""
                self._log(lines)
        self._log([rest])

    def _log(self, lines: list[bytes]) -> None:
        for line in lines:
            if text := line.decode(errors="backslashreplace").rstrip():
                said = read_line(text)
                where = {"child": self._child, "text": said.text, "source": said.source}
                log.log(said.level, said.message, extra=where)
