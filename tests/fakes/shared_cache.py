"""A double for the client of a shared cache: a dictionary that can be held, and fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from inferd_server.cache.key import Key
from inferd_server.cache.lookup import Stored
from inferd_server.cache.remote import Exchanged, RemoteError

HELD_AT_MOST = 30.0


class FakeClient:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.known: dict[Key, Stored] = {}
        self.exchanges: list[tuple[list[Key], list[Key]]] = []
        """Keys that were wanted, and stored, in each."""
        self.broken = False
        self.full = False
        self.connected = 0
        self.error: Exception = RemoteError("broken")
        self.closed = threading.Event()
        self.asked = threading.Event()
        """Set when an exchange has begun."""
        self._gate = threading.Event()
        self._gate.set()

    def hold(self) -> None:
        """Make exchanges wait until `release`."""
        self.asked.clear()
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def exchange(self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]) -> Exchanged:
        self.exchanges.append((list(wanted), [key for key, _ in stored]))
        self.asked.set()
        assert self._gate.wait(HELD_AT_MOST)
        if self.broken:
            raise self.error
        if not self.full:
            self.known |= dict(stored)
        found = [self.known.get(key) for key in wanted]
        return Exchanged(found, "no room" if self.full and stored else "")

    def connect(self) -> None:
        """Count it, and fail as exchanges do."""
        self.connected += 1
        self.asked.set()
        if self.broken:
            raise self.error

    def close(self) -> None:
        self.closed.set()
