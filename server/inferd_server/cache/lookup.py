"""A question to the shared cache."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from inferd_server.batching.timers import Timer
from inferd_server.cache.key import Key, Owner

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found under a key, and the seconds that it may still be used."""

    data: bytes
    ttl: float


Found: TypeAlias = Callable[[Stored | None], None]


class Lookup:
    """A question that is answered once: by the shared cache, or by the end of patience."""

    def __init__(self, key: Key, owner: Owner, found: Found) -> None:
        self.key = key
        self.owner = owner
        self.alarm: Timer | None = None
        self._found = found
        self._open = threading.Lock()

    def settle(self, stored: Stored | None) -> bool:
        """Answer; False if that was done before."""
        # A lock that is never released: the first to take it answers.
        if not self._open.acquire(blocking=False):
            return False
        if self.alarm is not None:
            self.alarm.cancel()
        try:
            self._found(stored)
        except Exception:
            log.exception("what was looked up could not be used")
        return True
