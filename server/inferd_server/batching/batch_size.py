"""How many of the requests that could share a run do so."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

NEVER = float("inf")
RESERVE = 0.1
"""Part of a request's time that should be left when its run ends: for the way, and a slower run."""


class Timed(Protocol):
    """A request, as far as its place in a batch depends on it."""

    @property
    def rows(self) -> int:
        """Rows it brings to a batch."""

    @property
    def arrived(self) -> float:
        """Monotonic seconds."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""


T = TypeVar("T", bound=Timed)
Seconds = Callable[[int], float]
"""What a run of so many rows takes; more rows never take less."""


def must_end(request: Timed) -> float:
    """Return a request's deadline, in monotonic seconds; infinite without one."""
    deadline = request.deadline
    return NEVER if deadline is None else deadline


def should_end(request: Timed) -> float:
    """Return until when a request's run should end, in monotonic seconds: some time is left."""
    deadline = request.deadline
    return NEVER if deadline is None else deadline - RESERVE * (deadline - request.arrived)


def in_time(
    requests: Sequence[T], now: float, seconds: Seconds, slow: Seconds
) -> tuple[Sequence[T], Sequence[T]]:
    """Divide requests that could share a run into those that do, and those to be dropped.

    Fewer rows are taken if that lets the one with the least time be in time, even in a slow run,
    unless it costs more than half of the batch: then that one is dropped. Who is in neither part
    may wait.

    Args:
        requests: in the order in which they are due.
        now: monotonic seconds.
        seconds: of a run.
        slow: of one that takes long.
    """
    left = list(requests)
    dropped: list[T] = []
    while left:
        rows = list(accumulate(request.rows for request in left))
        first = min(range(len(left)), key=lambda index: must_end(left[index]))
        time = must_end(left[first]) - now
        if seconds(rows[-1]) <= time:
            return left, dropped
        count = fitting(rows, time, slow)
        if count > first and 2 * rows[count - 1] >= rows[-1]:
            return left[:count], dropped
        dropped.append(left.pop(first))
    return (), dropped


def fitting(rows: Sequence[int], time: float, seconds: Seconds) -> int:
    """Return how many of the first requests run within so many seconds.

    Args:
        rows: of the first request, the first two, ... of all.
        time: seconds.
        seconds: of a run.
    """
    if seconds(rows[-1]) <= time:
        return len(rows)
    return bisect_right(rows, time, key=seconds)


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
