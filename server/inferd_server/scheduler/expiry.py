"""Ends requests at their deadline, whoever is busy then."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Protocol

KEPT = 1024
"""Requests from which on those that are answered are thrown out."""


class Expiring(Protocol):
    """A request with a deadline."""

    @property
    def answered(self) -> bool:
        """True once there is nothing left to end."""


class Expiry:
    """Calls back at deadlines, on a thread of its own. Any thread may call `watch`.

    For deadlines that only the request names: those of calls end by gRPC's own timers.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Watch nothing; the thread starts with the first request."""
        self._clock = clock
        self._waiting: list[tuple[float, int, Expiring, Callable[[], None]]] = []
        self._numbers = count()
        self._limit = KEPT
        self._changed = threading.Condition()
        self._started = False

    def watch(self, deadline: float, request: Expiring, then: Callable[[], None]) -> None:
        """Call `then` at the deadline, in monotonic seconds, unless it is answered before."""
        with self._changed:
            heapq.heappush(self._waiting, (deadline, next(self._numbers), request, then))
            if len(self._waiting) > self._limit:
                self._forget()
            if not self._started:
                self._started = True
                threading.Thread(target=self._live, name="deadlines", daemon=True).start()
            elif self._waiting[0][0] == deadline:
                self._changed.notify()

    def due(self, now: float) -> list[Callable[[], None]]:
        """Take out and return what is to be called by now."""
        found = []
        with self._changed:
            while self._waiting and self._waiting[0][0] <= now:
                _, _, request, then = heapq.heappop(self._waiting)
                if not request.answered:
                    found.append(then)
        return found

    def _forget(self) -> None:
        self._waiting = [entry for entry in self._waiting if not entry[2].answered]
        heapq.heapify(self._waiting)
        self._limit = max(KEPT, 2 * len(self._waiting))

    def _live(self) -> None:
        while True:
            for then in self.due(self._clock()):
                then()
            with self._changed:
                first = self._waiting[0][0] if self._waiting else None
                if first is None:
                    self._changed.wait()
                elif (seconds := first - self._clock()) > 0:
                    self._changed.wait(seconds)
