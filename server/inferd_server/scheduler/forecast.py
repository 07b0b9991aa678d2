"""The forecast of the moment at which a request that arrives now would be answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from inferd_server.scheduler.costs import Costs
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.promise import stretched

PROBE_S = 1.0
"""Seconds after which what was learned has to be tried again before anybody is refused for it."""
START = 1.5
"""Stretch before anything was learned of it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that a request is expected to take."""

    wait: float
    """Until its run begins."""
    run: float
    """Of its run."""
    stretch: float = 1.0
    """By how much more it may be."""

    @property
    def total(self) -> float:
        """Until its answer, as learned."""
        return self.wait + self.run

    @property
    def latest(self) -> float:
        """Until its answer, with all that has made requests late before."""
        return self.total * self.stretch


class Forecast:
    """What one model version is expected to take. Any thread may call any method."""

    def __init__(self, most: int, instances: int = 1) -> None:
        """Begin without anything learned.

        Args:
            most: rows of a batch.
            instances: engines that run batches beside each other.
        """
        self._most = max(1, most)
        self._instances = instances
        self._costs = Costs()
        self._learned = float("-inf")
        self._behind = 0
        self.last: Execution | None = None
        """What was learned last: nothing more can be learned from it."""
        self._stretch = START
        self._lock = threading.Lock()
        self._longest = 0.0

    def learn(self, run: Execution, now: float) -> None:
        """Take a run in, once for each request that it answered: the first one counts."""
        last, self.last = self.last, run
        seconds = run.gather + run.compute
        # From another process each answer brings a copy.
        if last is not None and (last.rows, last.compute) == (run.rows, run.compute):
            return
        with self._lock:
            self._costs.learn(run.rows, seconds)
            self._behind = run.behind
            self._learned = now
            self._longest = self._costs.seconds(self._most)

    def presses(self, slack: float, held: int) -> bool:
        """True if a request with so much time needs a closer look; wrong to one side only.

        Args:
            slack: seconds.
            held: rows that wait or run before it, as far as this process knows.
        """
        ahead = max(held, self._behind + self._most)
        return slack < self._longest * (ahead // self._most + 2) * self._stretch

    def kept(self, expected: float, took: float) -> None:
        """Learn from a request that was near its deadline: how long it took, in seconds."""
        with self._lock:
            longer = took > expected * self._stretch
            self._stretch = stretched(self._stretch, longer=longer)

    def expect(self, rows: int, held: int, now: float) -> Expected | None:
        """Forecast a request; None if nothing recent is known: then only trying helps.

        Args:
            rows: of the request.
            held: rows that wait or run before it, as far as this process knows.
            now: monotonic seconds.
        """
        costs, most = self._costs, self._most
        passed = now - self._learned
        if passed > max(PROBE_S, 10 * self._longest):
            return None
        # Other processes' rows, as the worker told with its last answer.
        ahead = max(held, self._behind + most) if self._behind else held
        full, rest = divmod(ahead, most)
        work = full * costs.seconds(most) + costs.seconds(rest)
        # What runs began with the last answer at the latest.
        done = min(passed, costs.seconds(min(ahead, most)))
        return Expected(
            max(0.0, work - done) / self._instances,
            costs.seconds(min(most, max(rows, ahead))),
            self._stretch,
        )
