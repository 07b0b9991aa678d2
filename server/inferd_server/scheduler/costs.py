"""What runs cost, learned from those that ran."""

from __future__ import annotations

from collections import deque
from statistics import median_high

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
