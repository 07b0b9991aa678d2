"""Batch sizes that an engine runs without padding, as pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def padding(rows: int, sizes: Sequence[int]) -> int:
    """Return the rows that a batch is padded with.

    Args:
        rows: of the batch.
        sizes: that run without padding, in rising order; empty: any does.
    """
    index = bisect_left(sizes, rows)
    return sizes[index] - rows if index < len(sizes) else 0


def worth_running(rows: Sequence[int], sizes: Sequence[int]) -> int:
    """Return how many of the first requests should run now, and how many may wait.

    All of them, padded, unless fewer requests fill a smaller size and leave fewer rows behind than
    would be padded: the engine is busy with padding as long as with rows.

    Args:
        rows: of the first request, the first two, ... of all.
        sizes: that run without padding, in rising order; empty: any does.
    """
    wasted = padding(rows[-1], sizes)
    index = bisect_left(sizes, rows[-1])
    if not wasted or not index:
        return len(rows)
    count = bisect_right(rows, sizes[index - 1])
    left = rows[-1] - rows[count - 1] if count else wasted
    return count if left < wasted else len(rows)
