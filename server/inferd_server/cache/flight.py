"""Equal requests in flight: the first one leads, the others follow it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from inferd_server.batching.timers import Timer
from inferd_server.cache.key import Form, Key
from inferd_server.errors import QueueFull
from inferd_server.transport.call import Call


class Admit(Protocol):
    """Admits a call anew, on any thread."""

    def __call__(self, call: Call, started: float, attempt: int, /) -> None:
        """Queue it, or answer it.

        Args:
            call: to be admitted.
            started: when it arrived, in monotonic seconds.
            attempt: which one this is.
        """


@dataclass(slots=True, eq=False)
class Asker:
    """A request, as far as it must be known to answer it, or to admit it anew."""

    call: Call
    identity: bytes
    """Its id as a field of the response; b"" for none."""
    form: Form
    key: Key
    started: float
    """Monotonic seconds."""
    attempt: int
    admit: Admit
    alarm: Timer | None = field(default=None, init=False)
    """Rings at its deadline while it follows."""


class Flight:
    """A leader, and who waits for the same answer."""

    __slots__ = ("followers", "leader")

    def __init__(self, leader: Asker) -> None:
        self.leader = leader
        # By id, in the order in which they came.
        self.followers: dict[int, Asker] = {}


class Flights:
    """All flights by key. Every method may be called from any thread.

    Whoever gets an asker from here, and nobody else, has to answer it.
    """

    def __init__(self, limit: int) -> None:
        """Begin with none; `limit` bounds the followers of all flights together."""
        self._limit = limit
        self._flights: dict[Key, Flight] = {}
        self._waiting = 0
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many follow."""
        return self._waiting

    def join(self, asker: Asker) -> bool:
        """True if the asker leads a new flight; False: it follows from now on.

        Raises:
            QueueFull: as many as may follow do so already.
        """
        with self._lock:
            flight = self._flights.get(asker.key)
            if flight is None:
                self._flights[asker.key] = Flight(asker)
                return True
            if self._waiting >= self._limit:
                raise QueueFull(
                    f"{self._waiting} requests wait for equal ones in flight, and no more may "
                    "(cache_max_waiting)"
                )
            flight.followers[id(asker)] = asker
            self._waiting += 1
            return False

    def follows(self, asker: Asker) -> bool:
        """True while an asker follows."""
        with self._lock:
            flight = self._flights.get(asker.key)
            return flight is not None and id(asker) in flight.followers

    def leave(self, asker: Asker) -> bool:
        """Let an asker follow no more; False if it does not."""
        with self._lock:
            flight = self._flights.get(asker.key)
            if flight is None or flight.followers.pop(id(asker), None) is None:
                return False
            self._waiting -= 1
            return True

    def land(self, leader: Asker) -> list[Asker]:
        """End a flight and return who followed; nobody if this asker leads it no more."""
        with self._lock:
            flight = self._led(leader)
            if flight is None:
                return []
            del self._flights[leader.key]
            self._waiting -= len(flight.followers)
            return list(flight.followers.values())

    def succeed(self, leader: Asker) -> Asker | None:
        """Let the follower that waits longest lead; None, and no flight any more, without one."""
        with self._lock:
            flight = self._led(leader)
            if flight is None:
                return None
            if not flight.followers:
                del self._flights[leader.key]
                return None
            heir = flight.followers.pop(next(iter(flight.followers)))
            self._waiting -= 1
            flight.leader = heir
            return heir

    def _led(self, leader: Asker) -> Flight | None:
        flight = self._flights.get(leader.key)
        return flight if flight is not None and flight.leader is leader else None
