"""Seconds that runs take, by shape and rows, as learned from those that ended."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from statistics import median_low

from inferd_server.batching.batch_size import padding

FRESH_S = 1.5
"""Seconds after which what runs took has to be seen again before anybody is refused for it."""
RUNS = 8
"""Runs of a shape that tell how fast the engine is now."""
CHANGED = 2.0
"""A run that takes so many times as long as those before, or as little, is of another kind."""
STEP = 0.03
"""Part of a surprise that is held to come from the number of rows, not from the engine's speed;
more of the first ones."""
TRIED = 2
"""Beyond the most rows that ran, so many times as many are tried as if they cost no more."""
SHORTEST_S = 1e-9
"""A run that took less was too short for the clock."""
SHAPES = 64
"""Shapes that are remembered."""


class ShapeCosts:
    """Costs of one shape: numbers of rows beside each other, and the speed of the last runs.

    Seconds are the weight of a number of rows times the speed, so that a run of any size tells
    of all sizes when the engine has become slower or faster.
    """

    def __init__(self, sizes: Sequence[int] = ()) -> None:
        """Begin with nothing known.

        Args:
            sizes: rows that the engine runs without padding, in rising order; empty: any.
        """
        self._sizes = sizes
        # Numbers of rows in rising order, and their weights: replaced together.
        self._known: tuple[list[int], list[float]] = [], []
        # Runs that told of a number of rows beside others.
        self._seen: dict[int, int] = {}
        self._speeds: list[float] = []
        self._rows = 0
        # Of the last runs, whatever kind they are of.
        self._all: list[float] = []
        self._learned = float("-inf")
        self._suspect: float | None = None

    def learn(self, rows: int, seconds: float, now: float) -> None:
        """Take in a run that has just ended; one thread at a time."""
        rows += padding(rows, self._sizes)
        self._note(self._speed(rows, max(seconds, SHORTEST_S)))
        self._rows, self._learned = rows, now

    def _speed(self, rows: int, seconds: float) -> float:
        """Return the speed of a run, and correct what its number of rows weighs."""
        numbers, weights = self._known
        at = bisect_left(numbers, rows)
        if at == len(numbers) or numbers[at] != rows:
            speeds = self._speeds
            usual = sum(speeds) / len(speeds) if speeds else 1.0
            weights = [*weights[:at], seconds / usual, *weights[at:]]
            weights[at] = between(weights, at)
            self._known = [*numbers[:at], rows, *numbers[at:]], weights
            return seconds / weights[at]
        speed = seconds / weights[at]
        if rows != self._rows:
            # Beside the last runs: equal ones tell nothing of what other numbers of rows weigh.
            surprise = speed / median_low(self._all)
            seen = self._seen[rows] = self._seen.get(rows, 1) + 1
            weights[at] *= min(CHANGED, max(1 / CHANGED, surprise)) ** max(STEP, 1 / seen)
            weights[at] = between(weights, at)
        return speed

    def certain(self, now: float) -> bool:
        """True if requests may be dropped for what is known: several runs say so, just now."""
        return now - self._learned <= FRESH_S and self._suspect is None and len(self._speeds) > 1

    def least(self, rows: int) -> float:
        """Return the seconds of the quickest of the last runs, for so many rows; 0 in doubt."""
        if len(self._speeds) < 2:
            return 0.0
        return min(self._all) * self._weight(rows, growing=False)

    def likely(self, rows: int) -> float:
        """Return the seconds within which a run of so many rows ends, nearly always."""
        if not self._speeds:
            return 0.0
        return (self._suspect or max(self._speeds)) * self._weight(rows, growing=True)

    def typical(self, rows: int) -> float:
        """Return the seconds within which every other run of so many rows ends; 0 in doubt."""
        if len(self._speeds) < 2:
            return 0.0
        return median_low(self._speeds) * self._weight(rows, growing=True)

    def usual(self, rows: int) -> float:
        """Return the seconds within which four of five runs of so many rows end; 0 in doubt."""
        speeds = self._speeds
        if len(speeds) < 2:
            return 0.0
        return sorted(speeds)[4 * len(speeds) // 5] * self._weight(rows, growing=True)

    def _weight(self, rows: int, *, growing: bool) -> float:
        """Return what so many rows weigh; between numbers that ran, in proportion.

        Args:
            rows: of a run.
            growing: each row beyond those that may be tried costs as much as one of those.
        """
        rows += padding(rows, self._sizes)
        numbers, weights = self._known
        at = bisect_left(numbers, rows)
        if at == len(numbers):
            return weights[-1] * (max(1.0, rows / numbers[-1] / TRIED) if growing else 1.0)
        more, weight = numbers[at], weights[at]
        if more == rows:
            return weight
        fewer, least = (numbers[at - 1], weights[at - 1]) if at else (0, 0.0)
        return least + (weight - least) * (rows - fewer) / (more - fewer)

    def _note(self, speed: float) -> None:
        """Keep a speed, and none from before a change; one slow run alone is none."""
        speeds, suspect, self._suspect = self._speeds, self._suspect, None
        self._all = [*self._all[1 - RUNS :], speed]
        if not speeds or speed * CHANGED < min(speeds):
            self._speeds = [speed]
        elif speed <= CHANGED * max(speeds):
            # A slow run that no other one followed is one of those that happen.
            seen = speeds if suspect is None else [*speeds, suspect]
            self._speeds = [*seen[1 - RUNS :], speed]
        elif suspect is None:
            self._suspect = speed
        else:
            self._speeds = [suspect, speed]


def between(weights: Sequence[float], at: int) -> float:
    """Return a weight, no smaller than the one before it and no larger than the one behind."""
    least = weights[at - 1] if at else 0.0
    return min([max(least, weights[at]), *weights[at + 1 : at + 2]])


class RunCosts:
    """Costs of one model version, by shape. Any thread may call any method."""

    def __init__(self, sizes: Sequence[int] = ()) -> None:
        """Begin with nothing known.

        Args:
            sizes: rows that the engine runs without padding, in rising order; empty: any.
        """
        self._sizes = sizes
        # The shape that ran least recently first.
        self._shapes: OrderedDict[Hashable, ShapeCosts] = OrderedDict()
        self._unknown = ShapeCosts()
        # The shape that ran last, which most runs share: the hash of one looks into every type.
        self._latest: tuple[Hashable, ShapeCosts] = (None, self._unknown)
        self._lock = threading.Lock()
        # The longest run of the last second that is over, and of the one that is not.
        self._before = self._lately = 0.0
        self._since = float("-inf")
        self.longest = 0.0
        """Seconds of the longest run of the last one to two seconds in which there were any."""

    def learn(self, shape: Hashable, rows: int, seconds: float, now: float) -> None:
        """Take in a run that has just ended."""
        with self._lock:
            if self._latest[0] is not shape:
                self._latest = shape, self._used(shape)
            self._latest[1].learn(rows, seconds, now)
            if now - self._since > FRESH_S:
                self._before, self._lately, self._since = self._lately, 0.0, now
            self._lately = max(self._lately, seconds)
            # Here, because every request asks for it.
            self.longest = max(self._before, self._lately)

    def _used(self, shape: Hashable) -> ShapeCosts:
        """Return what is known of a shape, which is forgotten last from now on."""
        found = self._shapes.pop(shape, None)
        found = self._shapes[shape] = ShapeCosts(self._sizes) if found is None else found
        if len(self._shapes) > SHAPES:
            self._shapes.popitem(last=False)
        return found

    def of(self, shape: Hashable) -> ShapeCosts:
        """Return what is known of a shape."""
        return self._shapes.get(shape, self._unknown)
