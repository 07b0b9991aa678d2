"""Whether a request that arrives now will be answered in time."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from inferd_server.scheduler.costs import Costs
from inferd_server.scheduler.job import Execution

PROBE_S = 1.0
"""Seconds after which what was learned has to be tried again before anybody is refused for it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds that a request is expected to take."""

    wait: float
    """Until its run begins."""
    run: float
    """Of its run."""


class Forecast:
    """What one model version is expected to take. Any thread may call any method."""

    def __init__(self, most: int, instances: int = 1) -> None:
        """Know nothing.

        Args:
            most: rows of a batch.
            instances: engines that run batches beside each other.
        """
        self._most = max(1, most)
        self._instances = instances
        self._costs = Costs()
        self._learned = float("-inf")
        self._behind = 0
        self._last: tuple[int, float] = (0, 0.0)
        self._lock = threading.Lock()
        self._longest = 0.0

    def learn(self, run: Execution, now: float) -> None:
        """Take a run in, once for each request that it answered: the first one counts."""
        seconds = run.gather + run.compute
        if self._last == (run.rows, seconds):
            return
        with self._lock:
            self._last = run.rows, seconds
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
        return slack < self._longest * (ahead // self._most + 2)

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
            max(0.0, work - done) / self._instances, costs.seconds(min(most, max(rows, ahead)))
        )
