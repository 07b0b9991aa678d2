"""The worker's answers on the thread that polls a front's sockets, between its events.

A second thread that wakes for an answer costs a front as much as the rest of the request. A polling
thread that looks for some time before it sleeps sends the answers of that time itself, and nobody
is woken; the second thread is for answers that come while it sleeps (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        self._links: Sequence[FrontLink] = ()
        self._in_flight = 0
        self._until = 0.0

    def watch(self, links: Sequence[FrontLink]) -> None:
        """Take the answers of these links from now on."""
        self._links = links

    def turn(self) -> float | None:
        """Answer what is completed; return 0 to be called again at once, None after an event."""
        if not self._links or not self._spin_s:
            return None
        # Every link is looked at, so no `any` that stops at the first.
        again = [link.look(self._spins) for link in self._links]
        return 0.0 if True in again else None

    def _spins(self) -> bool:
        """True while the next answer may be near."""
        now, in_flight = self._clock(), sum(link.in_flight for link in self._links)
        if in_flight != self._in_flight:
            self._in_flight, self._until = in_flight, now + self._spin_s
        return now < self._until
