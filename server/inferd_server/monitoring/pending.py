"""Numbers of requests that are added up together: one by one they cost several times as much."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

R = TypeVar("R", bound=tuple[float, ...])

MOST = 64
"""Requests after which they are added up; reading adds them up, too."""


class PendingNumbers(Generic[R]):
    """The numbers of requests that are not added up yet. Every method may be called anywhere."""

    def __init__(self) -> None:
        self._rows: deque[R] = deque()
        self.add = self._rows.append
        """Takes in the numbers of one request; needs no lock."""

    @property
    def full(self) -> bool:
        """True once it is time to add them up."""
        return len(self._rows) >= MOST

    def take(self) -> list[R]:
        """Return what is there, oldest first, and forget it. One thread at a time."""
        rows = self._rows
        return [rows.popleft() for _ in range(len(rows))]


def add_to_buckets(counts: list[int], bounds: Sequence[float], values: Iterable[float]) -> None:
    """Add values to the counts of a histogram.

    Args:
        counts: of each bucket, the last above all bounds.
        bounds: upper ones, in rising order; a value that equals one is below it.
        values: to be added.
    """
    ordered = sorted(values)
    before = 0
    for index, bound in enumerate(bounds):
        up_to = bisect_right(ordered, bound, before)
        counts[index] += up_to - before
        before = up_to
    counts[-1] += len(ordered) - before
