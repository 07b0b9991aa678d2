"""Gives every place its next request when it is due, and counts what became of the last."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from inferd_client.bench.plan import Plan, Schedule
from inferd_client.bench.samples import Samples


class Place(Protocol):
    """One place in flight.

    Attributes:
        due: the moment that latency counts from.
        started: when the request was sent; infinite while none is out.
    """

    due: float
    started: float

    def send(self) -> None:
        """Send the request."""

    def expire(self) -> None:
        """Give the request up, and settle it."""


class Load:
    """One run at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Prepare; `clock` tells monotonic seconds."""
        self._clock = clock
        self._places: Sequence[Place] = ()
        self._timeout = math.inf
        self._busy = 0
        # Places that wait for the moment of their request, the earliest first.
        self._ahead: deque[Place] = deque()
        self._expiry = math.inf
        self._samples = Samples(started=0.0)
        self._schedule = Schedule(Plan("", b"", requests=0), 0.0)

    @property
    def busy(self) -> bool:
        """True until the last request is answered."""
        return self._busy > 0

    def begin(self, plan: Plan, places: Sequence[Place], samples: Samples) -> Schedule:
        """Start a run, counted in `samples`, and return its schedule."""
        self._places = places
        self._timeout = plan.timeout
        self._samples = samples
        self._schedule = Schedule(plan, samples.started)
        self._busy = len(places)
        self._expiry = samples.started + plan.timeout
        for place in places:
            self._next(place, self._clock())
        return self._schedule

    def settle(self, place: Place, code: str) -> None:
        """Count an answer, and send the next request of its place."""
        now = self._clock()
        self._samples.add(code, now - place.due)
        self._next(place, now)

    def look(self) -> float:
        """Send what is due and give up what takes too long; return the seconds until more is."""
        now = self._clock()
        while self._ahead and self._ahead[0].due <= now:
            self._send(self._ahead.popleft(), now)
        if now >= self._expiry:
            self._expire(now)
        coming = self._ahead[0].due if self._ahead else math.inf
        return max(min(coming, self._expiry) - now, 0.0)

    def _next(self, place: Place, now: float) -> None:
        due = self._schedule.take(now)
        if due is None:
            place.started = math.inf
            self._busy -= 1
            return
        place.due = due
        if due > now:
            place.started = math.inf
            self._ahead.append(place)
        else:
            self._send(place, now)

    def _send(self, place: Place, now: float) -> None:
        place.started = now
        place.send()

    def _expire(self, now: float) -> None:
        for place in self._places:
            if place.started + self._timeout <= now:
                place.expire()
        oldest = min(place.started for place in self._places)
        # What starts from now on expires later.
        self._expiry = min(oldest, now) + self._timeout
