"""A double for the monotonic clock: it moves when a test says so."""

from __future__ import annotations

import threading

READ_WITHIN = 30.0
"""Seconds after which a reading that never comes fails the test."""


class FakeClock:
    """Monotonic seconds. May be read and moved by any thread."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._reads = 0
        self._read = threading.Condition()

    def __call__(self) -> float:
        """Tell the time."""
        with self._read:
            self._reads += 1
            self._read.notify_all()
            return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._read:
            self._now += seconds

    def await_reads(self, count: int) -> None:
        """Block until the clock was read so often: how to know that a thread got there.

        Raises:
            TimeoutError: it never was.
        """
        with self._read:
            if not self._read.wait_for(lambda: self._reads >= count, READ_WITHIN):
                raise TimeoutError(f"the clock was read {self._reads} times, not {count}")
