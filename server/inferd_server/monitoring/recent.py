"""The last lines of the log that matter, for whoever looks at the server."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MOST_LINES = 30
"""That are kept of each process, and shown of all."""
MOST_TEXT = 500
"""Characters of a line."""
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest was logged in `extra`."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log."""

    at: float
    """Seconds since the epoch."""
    level: str
    part: str
    """Of the server: the process that wrote it; "" for the one that speaks for all."""
    text: str


class RecentLines(logging.Handler):
    """Keeps the last warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[LogLine] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        values = vars(record)
        pairs = [
            f"{name}={value}"
            for name, value in values.items()
            if name not in {*PLAIN, "part"} and value
        ]
        error = record.exc_info[1] if record.exc_info else None
        told = [record.getMessage(), *pairs, *([] if error is None else [repr(error)])]
        part = str(values.get("part", ""))
        text = " ".join(told)[:MOST_TEXT]
        self._lines.append(LogLine(record.created, record.levelname.lower(), part, text))

    def read(self) -> tuple[LogLine, ...]:
        """Return the lines, the oldest first."""
        return tuple(self._lines)


def latest_lines(lines: Iterable[LogLine]) -> tuple[LogLine, ...]:
    """Return the last lines of several processes, the oldest first."""
    return tuple(sorted(lines, key=lambda line: line.at)[-MOST_LINES:])
