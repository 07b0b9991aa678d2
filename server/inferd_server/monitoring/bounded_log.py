"""A log of what callers can make happen any number of times: a few lines, then a count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

LINES, PERIOD_S = 5, 10.0
"""Lines of one kind in so many seconds."""


class BoundedLog:
    """Writes a few lines of one kind in a while, and no more. Any thread may call."""

    def __init__(
        self,
        log: logging.Logger,
        clock: Callable[[], float],
        lines: int = LINES,
        period: float = PERIOD_S,
    ) -> None:
        """Begin with nothing written.

        Args:
            log: that is written to.
            clock: monotonic seconds.
            lines: of one kind in a period.
            period: seconds.
        """
        self._log = log
        self._clock = clock
        self._lines = lines
        self._period = period
        # By kind: when its period began, the lines since then, and those left out.
        self._kinds: dict[object, tuple[float, int, int]] = {}
        self._lock = threading.Lock()

    def __call__(
        self,
        kind: object,
        level: int,
        message: str,
        extra: Mapping[str, object],
        trace: BaseException | None = None,
    ) -> None:
        """Write a line, unless there were many of its kind; the next one says how many.

        Args:
            kind: what is counted together, such as a model and a message.
            level: of the logging module.
            message: of the line.
            extra: named values of the line.
            trace: an error whose stack is shown.
        """
        left_out = self._admit(kind)
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            self._log.log(level, message, extra={**extra, **more}, exc_info=trace)

    def _admit(self, kind: object) -> int | None:
        """Return how many lines were left out before this one; None if this one is, too."""
        now = self._clock()
        with self._lock:
            began, lines, left_out = self._kinds.get(kind, (now, 0, 0))
            if now - began >= self._period:
                began, lines = now, 0
            if lines >= self._lines:
                self._kinds[kind] = began, lines, left_out + 1
                return None
            self._kinds[kind] = began, lines + 1, 0
            return left_out
