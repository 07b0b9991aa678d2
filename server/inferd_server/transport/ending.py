"""How long a transport that stops waits: for its calls, and for connections without any."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

LINGER_S = 1.0
"""What callers get to close their connection once they have no call left."""
LOOK_S = 0.05
"""Time between two looks at what is open."""


class Next(Enum):
    """What to do after a look."""

    WAIT = auto()
    GIVE_UP = auto()
    CLOSE = auto()


class Ending:
    """The end of one transport, from the moment that it takes no new calls."""

    def __init__(self, grace: float, clock: Callable[[], float]) -> None:
        """Begin; `grace` is what calls get, in seconds of the clock."""
        self._clock = clock
        self._until = clock() + grace
        self._idle_since: float | None = None

    def look(self, calls: int) -> Next:
        """Decide, with so many calls open."""
        now = self._clock()
        if calls:
            self._idle_since = None
            return Next.GIVE_UP if now >= self._until else Next.WAIT
        if self._idle_since is None:
            self._idle_since = now
        if now >= min(self._idle_since + LINGER_S, self._until):
            return Next.CLOSE
        return Next.WAIT
