"""Numbers of requests or batches, added up together: one by one they cost far more."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

R = TypeVar("R", bound=tuple[object, ...])

MOST = 256
"""How many are added up together, in about 0.2 ms; reading adds them up, too."""


class PendingNumbers(Generic[R]):
    """Numbers that are not added up yet. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.rows: list[R] = []
        """To be added up once there are MOST."""
        self.add = self.rows.append
        """Takes in the numbers of one request, or batch; needs no lock."""

    def take(self) -> list[R]:
        """Return what is there, oldest first, and forget it. One thread at a time."""
        found = self.rows[:]
        # What came meanwhile stands behind them.
        del self.rows[: len(found)]
        return found


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
