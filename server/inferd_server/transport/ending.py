"""How long a transport that stops waits: for calls that arrive, for open ones, and for connections.

gRPC core drops a call that it received and did not hand over when its server is shut down. So what
lies in its sockets has to come in before. That takes a thread of core's own, which nobody can ask
and which takes its time on a busy machine; it can only be seen at work.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

LINGER_S = 1.0
"""What callers get to close their connection once they have no call left."""
LOOK_S = 0.05
"""Time between two looks at what is open."""
ARRIVE_LOOK_S, ARRIVE_LOOKS = 0.005, 200
"""Time between two looks for calls that are on their way in, and how many there are at most."""
QUIET_LOOKS = 2
"""Looks in a row that find nothing before nothing is there.

A thread that waits for a lock may sleep for some microseconds, which a busy host makes longer.
"""
ARRIVE_EVENTS = 1 << 16
"""Events at most that the end waits for: callers that send on and on must not put it off."""
MISSES = 3
"""Polls in a row without an event that mean that nothing is there.

Core looks at one connection at a time, and two threads may meet at its queue.
"""


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


def take_in(poll: Callable[[float], bool | None], more_comes: Callable[[], bool]) -> None:
    """Handle what arrived before the end.

    Args:
        poll: handles the next event that comes within some seconds; False or None if none did.
        more_comes: False if nothing was on its way to `poll` since it was last called.
    """
    events = quiet = 0
    for _ in range(ARRIVE_LOOKS):
        # Ahead of the polls: they find whatever was handed over until then.
        more = more_comes()
        found = _poll_until_none(poll, ARRIVE_EVENTS - events)
        events += found
        quiet = 0 if more or found else quiet + 1
        if quiet == QUIET_LOOKS or events >= ARRIVE_EVENTS:
            return
        events += bool(poll(ARRIVE_LOOK_S))


def _poll_until_none(poll: Callable[[float], bool | None], limit: int) -> int:
    """Handle what is there, and return how many events that were."""
    events = misses = 0
    while misses < MISSES and events < limit:
        if poll(0.0):
            events, misses = events + 1, 0
        else:
            misses += 1
    return events
