"""The forecast of the moment at which a request that arrives now would be answered."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from statistics import median_high
from typing import Protocol

from inferd_server.monitoring.phases import Execution

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
            self._learned = now
            self._longest = self._costs.seconds(self._most)

    def presses(self, slack: float, held: int) -> bool:
        """True if a request with so much time needs a closer look; wrong to one side only.

        Args:
            slack: seconds.
            held: rows that wait or run before it.
        """
        return slack < self._longest * (held // self._most + 2) * self._stretch

    def kept(self, expected: float, took: float) -> None:
        """Learn from a request that was near its deadline: how long it took, in seconds."""
        with self._lock:
            longer = took > expected * self._stretch
            self._stretch = stretched(self._stretch, longer=longer)

    def expect(self, rows: int, held: int, now: float) -> Expected | None:
        """Forecast a request; None if nothing recent is known: then only trying helps.

        Args:
            rows: of the request.
            held: rows that wait or run before it.
            now: monotonic seconds.
        """
        costs, most = self._costs, self._most
        passed = now - self._learned
        if passed > max(PROBE_S, 10 * self._longest):
            return None
        full, rest = divmod(held, most)
        work = full * costs.seconds(most) + costs.seconds(rest)
        # What runs began with the last answer at the latest.
        done = min(passed, costs.seconds(min(held, most)))
        return Expected(
            max(0.0, work - done) / self._instances,
            costs.seconds(min(most, max(rows, held))),
            self._stretch,
        )


LATE = 0.005
"""Part of the promises that may turn out too short."""
STEP = 0.1
"""By how much one surprise changes what is expected, as a part of it."""
MOST = 3.0
NEAR = 0.9
"""Part of the time until the deadline after which a caller who leaves is one who was let down."""


def stretched(stretch: float, *, longer: bool) -> float:
    """Return by how much more forecasts should be than what was learned.

    It comes to rest where a part of LATE of all requests takes longer than forecast.

    Args:
        stretch: until now.
        longer: a request took longer than that.

    Source: the stochastic approximation of a quantile, Robbins and Monro 1951.
    """
    moved = stretch + STEP * ((1 - LATE) if longer else -LATE)
    return min(MOST, max(1.0, moved))


class Learner(Protocol):
    """Learns from promises."""

    def kept(self, expected: float, took: float) -> None:
        """Note how long a request took, in seconds, beside what was expected."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A request was let in because it was expected to be answered in time."""

    learner: Learner
    expected: float
    """Seconds, as learned, without any stretch."""
    deadline: float
    """Monotonic seconds."""

    def answered(self, took: float) -> None:
        """Tell after how many seconds the answer came."""
        self.learner.kept(self.expected, took)

    def ended(self, took: float, now: float) -> None:
        """Tell after how many seconds the request ended without an answer."""
        # Whoever leaves long before the deadline has reasons of his own.
        if now >= self.deadline - (1 - NEAR) * took:
            self.learner.kept(self.expected, float("inf"))


SAMPLES = 15
"""Runs of each size that count: enough for one that was disturbed not to matter."""


class Costs:
    """Seconds of a run by its size: the median of the last few. One thread at a time learns."""

    def __init__(self) -> None:
        """Begin without anything learned."""
        self._samples: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        # Sizes in rising order, with medians that never fall.
        self._known: tuple[tuple[int, float], ...] = ()

    def learn(self, rows: int, seconds: float) -> None:
        """Take a run in."""
        size = size_of(rows)
        samples = self._samples.setdefault(size, deque(maxlen=SAMPLES))
        samples.append(seconds)
        self._medians[size] = median_high(samples)
        self._known = rising(self._medians)

    def seconds(self, rows: int) -> float:
        """Return what a run of so many rows takes; 0 while nothing is known.

        Between sizes that are known, it takes as long as the larger one; beyond all of them, each
        row takes as long as in the largest.
        """
        if not rows or not self._known:
            return 0.0
        for size, seconds in self._known:
            if rows <= size:
                return seconds
        size, seconds = self._known[-1]
        return seconds * rows / size


def size_of(rows: int) -> int:
    """Return the power of two that a number of rows counts as."""
    return 1 << (rows - 1).bit_length()


def rising(medians: dict[int, float]) -> tuple[tuple[int, float], ...]:
    """Sort by size; what a smaller size takes, a larger one takes at least."""
    found: list[tuple[int, float]] = []
    for size in sorted(medians):
        least = found[-1][1] if found else 0.0
        found.append((size, max(least, medians[size])))
    return tuple(found)
