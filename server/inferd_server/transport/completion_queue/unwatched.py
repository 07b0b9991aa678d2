"""Calls whose end nobody watches yet: watching one costs an operation and an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

AGE_S = 0.005
"""Seconds after which a call is worth watching; it is found before twice as many passed."""


class Answerable(Protocol):
    """A call, as far as this needs to know it."""

    @property
    def answered(self) -> bool:
        """True once it has its answer."""


C = TypeVar("C", bound=Answerable)


class Unwatched(Generic[C]):
    """Most calls are answered before they are old enough. One thread only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Be empty; `clock` is monotonic seconds."""
        self._clock = clock
        # The same list at all times, so that taking a call in costs a single append.
        self._newer: list[C] = []
        self._older: list[C] = []
        self.add: Callable[[C], None] = self._newer.append
        """Takes in a call that its handler left open."""
        # When the older ones were set apart.
        self._since = clock()

    def __len__(self) -> int:
        """How many wait to be watched; some may have their answer."""
        return len(self._newer) + len(self._older)

    def take(self) -> Sequence[C]:
        """Return the calls that are old enough, and forget what was answered."""
        if not (self._newer or self._older):
            return ()
        # Now, because a call that is remembered keeps its memory.
        self._newer[:] = [call for call in self._newer if not call.answered]
        now = self._clock()
        if now - self._since < AGE_S:
            return ()
        old, self._older = self._older, self._newer.copy()
        self._newer.clear()
        self._since = now
        return [call for call in old if not call.answered]

    def rest(self) -> Sequence[C]:
        """Return all that is left, and be empty."""
        left = [call for call in (*self._older, *self._newer) if not call.answered]
        self._older = []
        self._newer.clear()
        return left

    def wait(self, seconds: float | None) -> float | None:
        """Shorten a wait so that calls are found when they are old; None: for ever."""
        if not (self._newer or self._older):
            return seconds
        return AGE_S if seconds is None else min(seconds, AGE_S)
