"""The choice of the next batch, as a pure function."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request that waits, as far as the decision needs to know it."""

    @property
    def rows(self) -> int:
        """Rows it brings to a batch."""

    @property
    def key(self) -> Hashable:
        """Equal for requests whose rows fit into one batch."""

    @property
    def arrived(self) -> float:
        """Monotonic seconds."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""

    @property
    def cancelled(self) -> bool:
        """The caller went away."""

    level: int
    """Priority; 0 is the highest."""

    @property
    def delay_at(self) -> float:
        """Monotonic seconds, from when on it waits behind all others; infinite: never."""

    @property
    def sequence(self) -> int:
        """The sequence that it is a step of; 0: of none."""

    @property
    def stream(self) -> object | None:
        """The stream that it came on, if that may have no more than its share."""


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """Bounds of one model's batches."""

    max_rows: int
    """Rows in one batch; 1 for a model that runs requests one at a time."""
    max_delay: float = 0.0
    """Seconds that the oldest request may wait for company."""
    sizes: tuple[int, ...] = ()
    """Rows that the engine runs without padding, in rising order; empty: any number."""
    levels: int = 1
    """Priorities that there are."""
    head_start: float = 0.0
    """Seconds by which a request goes before one of the next lower level that came as early.

    So nobody waits for ever: who has waited that much longer goes first.
    """
    sequences: bool = False
    """Requests are steps of sequences, each of which waits for the one before it."""
    delays: bool = False
    """Requests may have to wait behind all others once they have waited for a while."""


@dataclass(frozen=True, slots=True)
class Decision(Generic[W]):
    """Run these together, answer those without running, look again at `wake`."""

    run: tuple[W, ...] = ()
    drop: tuple[W, ...] = ()
    wake: float | None = None
    waited: float = 0.0
    """Seconds for which the caller was held back before this batch, by `wake`."""
    full: bool = False
    """More requests would not have fitted into it."""


def in_order(levels: Sequence[Iterable[W]], head_start: float) -> Iterable[W]:
    """Return waiting requests as they are due, given those of each level in order of arrival."""
    if len(levels) == 1:
        return levels[0]
    return merge(*levels, key=lambda request: request.arrived + request.level * head_start)


def next_batch(waiting: Iterable[W], now: float, limits: BatchBounds) -> Decision[W]:
    """Choose a batch, whoever is due first.

    The first live request leads; requests with its key follow in order until one
    does not fit, or until they fill a size that the engine runs without padding. A batch short
    of `max_rows` waits until its leader is `max_delay` old, unless one of its requests would
    expire first. Cancelled and expired requests that were passed on the way are dropped.

    Args:
        waiting: requests in the order in which they are due.
        now: monotonic seconds.
        limits: bounds of a batch.
    """
    run: list[W] = []
    drop: list[W] = []
    rows, most = 0, limits.max_rows
    full = False
    key: Hashable = None
    for request in waiting:
        deadline = request.deadline
        if request.cancelled or (deadline is not None and now >= deadline):
            drop.append(request)
            continue
        own, more = request.key, request.rows
        if run:
            # Most requests share one key object, and equality of keys looks into every shape.
            if own is not key and own != key:
                continue
            if rows + more > most:
                full = True
                break
        key = own
        run.append(request)
        rows += more
        if rows >= most:
            full = True
            break
    if not run:
        return Decision(drop=tuple(drop))
    ripe = run[0].arrived + limits.max_delay
    if full or now >= ripe or any(expired(request, ripe) for request in run):
        if limits.sizes:
            rows_up_to = list(accumulate(request.rows for request in run))
            del run[worth_running(rows_up_to, limits.sizes) :]
        return Decision(run=tuple(run), drop=tuple(drop), full=full)
    return Decision(drop=tuple(drop), wake=ripe)


def next_steps(waiting: Iterable[W], at_work: Collection[int]) -> Iterator[W]:
    """Yield the next step of each sequence, and none of one that is at work.

    Args:
        waiting: steps in the order in which they are due.
        at_work: sequences of which a step was taken that is not answered yet.
    """
    passed = set(at_work)
    for request in waiting:
        if request.sequence not in passed:
            passed.add(request.sequence)
            yield request


def expired(request: Waiting, now: float) -> bool:
    """True once the deadline has passed."""
    return request.deadline is not None and now >= request.deadline


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
