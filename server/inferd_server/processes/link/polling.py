"""The worker's answers on the thread that polls a front's sockets, between its events.

A second thread that wakes for an answer costs a front as much as the rest of the request. A polling
thread that looks for some time before it sleeps sends the answers of that time itself, and nobody
is woken; the second thread is for answers that come while it sleeps (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable

from inferd_server.processes.link.front_end import FrontLink


class AnswerPoll:
    """Work of the polling thread: answers what the worker completed (`Turns` of the transport)."""

    def __init__(self, spin_s: float, clock: Callable[[], float]) -> None:
        """Begin without a link.

        Args:
            spin_s: seconds for which the thread goes on looking before it sleeps, counted from
                when it last had something to do; 0: it looks for none at all. (Between events
                alone, answers would wait for the requests that are taken in before them.)
            clock: monotonic seconds.
        """
        self._spin_s = spin_s
        self._clock = clock
        self._link: FrontLink | None = None
        self._in_flight = 0
        self._until = 0.0

    def watch(self, link: FrontLink) -> None:
        """Take the answers of a link from now on."""
        self._link = link

    def turn(self) -> float | None:
        """Answer what is completed; return 0 to be called again at once, None after an event."""
        link = self._link
        if link is None or not self._spin_s:
            return None
        return 0.0 if link.look(self._spins) else None

    def _spins(self) -> bool:
        """True while the next answer may be near."""
        link = self._link
        assert link is not None
        now, in_flight = self._clock(), link.in_flight
        if in_flight != self._in_flight:
            self._in_flight, self._until = in_flight, now + self._spin_s
        return now < self._until
