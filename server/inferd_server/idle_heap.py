"""Gives memory back to the system once a server is idle.

The allocator is told to keep what large messages took (environment.py), which halves what the
next one costs; and so it would stay for ever at the most that there ever was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK_S = 5.0
"""Time without any request after which a server is idle, at least; at most twice that."""
WORTHWHILE_BYTES = 64 << 20
"""Bytes of requests and answers since the last time, below which there is little to give back."""


class Idleness:
    """What is known of a server's traffic since memory was given back."""

    def __init__(self) -> None:
        self._seen = 0
        self._given_back_at = 0

    def over(self, total: int, held: int) -> bool:
        """Return True if it is time to give memory back.

        Args:
            total: bytes of requests and answers so far.
            held: bytes of them that are here now.
        """
        idle = total == self._seen and not held
        self._seen = total
        if not idle or total - self._given_back_at < WORTHWHILE_BYTES:
            return False
        self._given_back_at = total
        return True


class IdleHeap:
    """A thread that looks every few seconds."""

    def __init__(self, traffic: Callable[[], tuple[int, int]], trim: Callable[[], None]) -> None:
        """Prepare.

        Args:
            traffic: total and held bytes, see `Idleness.over`.
            trim: gives memory back.
        """
        self._traffic = traffic
        self._trim = trim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="idle-heap", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        idleness = Idleness()
        while not self._ended.wait(LOOK_S):
            if idleness.over(*self._traffic()):
                self._trim()
