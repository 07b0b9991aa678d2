"""A bound on log lines that others can cause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

LINES = 5
"""Lines of one kind that may be written in each while."""
WHILE_S = 10.0


@dataclass(slots=True)
class Written:
    """Lines of one kind since the while began."""

    began: float
    lines: int = 0
    left_out: int = 0


class LogLimit:
    """Lets a few lines of each kind through in every `WHILE_S` seconds. Any thread.

    Kinds are remembered, so that there must be few of them: fixed words, or names of models.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with no lines; `clock` is monotonic seconds."""
        self._clock = clock
        self._kinds: dict[Hashable, Written] = {}
        self._lock = threading.Lock()

    def left_out(self, kind: Hashable) -> int | None:
        """Return how many lines were left out before this one; None: leave it out, too."""
        with self._lock:
            now = self._clock()
            written = self._kinds.setdefault(kind, Written(now))
            if now - written.began >= WHILE_S:
                written.began, written.lines = now, 0
            if written.lines >= LINES:
                written.left_out += 1
                return None
            written.lines += 1
            before, written.left_out = written.left_out, 0
            return before
