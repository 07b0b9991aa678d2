"""A circuit breaker: after some failures in a row nothing is tried for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Breaker:
    """Decides whether an attempt is worth it. Every method may be called from any thread."""

    def __init__(
        self, failures: int, rest: float, clock: Callable[[], float], told: Callable[[str], None]
    ) -> None:
        """Begin with confidence.

        Args:
            failures: in a row, after which nothing is tried.
            rest: seconds until one attempt is made again.
            clock: monotonic seconds.
            told: called once for each change: with the reason when attempts end, "" when they
                are made again. Under the lock, so briefly.
        """
        self._most = failures
        self._rest = rest
        self._clock = clock
        self._told = told
        self._failures = 0
        self._until = 0.0
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """True while attempts are made."""
        return self._failures < self._most

    def allows(self) -> bool:
        """True if an attempt should be made now; once for each rest while all fail."""
        with self._lock:
            if self._failures < self._most:
                return True
            now = self._clock()
            if now < self._until:
                return False
            # Whoever comes before this attempt has ended makes none.
            self._until = now + self._rest
            return True

    def succeeded(self) -> None:
        """Note that an attempt went well."""
        with self._lock:
            before, self._failures = self._failures, 0
            if before >= self._most:
                self._told("")

    def failed(self, reason: str) -> None:
        """Note that an attempt went wrong."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._most:
                self._until = self._clock() + self._rest
            if self._failures == self._most:
                self._told(reason)
