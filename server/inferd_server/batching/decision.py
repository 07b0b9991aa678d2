"""The choice of the next batch, as a pure function."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import accumulate, islice
from typing import Generic, Protocol, TypeVar

from inferd_server.batching.batch_size import (
    NEVER,
    RESERVE,
    fitting,
    in_time,
    must_end,
    should_end,
    worth_running,
)
from inferd_server.batching.run_costs import RunCosts, ShapeCosts


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
    def trial(self) -> bool:
        """It is no caller's."""

    @property
    def stream(self) -> object | None:
        """The stream that it came on, if that may have no more than its share."""


W = TypeVar("W", bound=Waiting)
LOOK = 2
"""Full batches behind the first one in which those are looked for that have more time."""


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


# Not frozen, which would cost more for every batch.
@dataclass(slots=True)
class Group(Generic[W]):
    """Requests of one shape that could share a run, as they are due."""

    requests: list[W]
    rows: int
    deadline: float
    """The first of theirs, in monotonic seconds."""
    full: bool
    """More requests would not fit."""

    def start(self, limits: BatchBounds, costs: RunCosts) -> float:
        """Return when it has to run at the latest, in monotonic seconds."""
        if self.full:
            return -NEVER
        # The first one is not the oldest where its priority is higher.
        latest = min(request.arrived for request in self.requests) + limits.max_delay
        if self.deadline == NEVER:
            return latest
        seconds = costs.of(self.requests[0].key).likely(self.rows)
        if not seconds:
            return -NEVER
        return min(latest, min(map(should_end, self.requests)) - seconds)


def next_batch(
    waiting: Iterable[W], now: float, limits: BatchBounds, costs: RunCosts
) -> Decision[W]:
    """Choose a batch: the first group in order that need not wait, as many of it as are in time.

    A group is the first live request of its shape and those of the same shape that follow, until
    one does not fit. It runs when it is full, when one of it is `max_delay` old, or when
    a deadline asks for it. The server's own trials run while no caller's group does.

    If requests cannot be in time in the run that would happen, they are dropped, and nothing runs
    before the caller asks again. Who would have little time left is dropped, too, where others wait
    for a place.

    Args:
        waiting: requests in the order in which they are due.
        now: monotonic seconds.
        limits: bounds of a batch.
        costs: what runs took.
    """
    waiting = iter(waiting)
    groups, trial, drop = grouped(waiting, now, limits)
    wake: float | None = None
    for group in groups:
        if limits.max_delay and now < (start := group.start(limits, costs)):
            wake = start if wake is None else min(wake, start)
            continue
        run, late = taken(group, waiting, now, limits, costs)
        return Decision(tuple(run), (*drop, *late), full=group.full)
    trial = trial or next((own for group in groups for own in group.requests if own.trial), None)
    if trial is not None:
        return Decision((trial,), tuple(drop))
    return Decision(drop=tuple(drop), wake=wake)


def grouped(
    waiting: Iterable[W], now: float, limits: BatchBounds
) -> tuple[list[Group[W]], W | None, list[W]]:
    """Return groups in the order of their first requests, a trial, and who is past help.

    Where none waits for company, only the first group is found, and it alone is asked for.
    """
    first: Group[W] | None = None
    key: Hashable = None
    others: dict[Hashable, Group[W]] = {}
    trial: W | None = None
    drop: list[W] = []
    most = limits.max_rows
    for request in waiting:
        deadline = request.deadline
        if request.cancelled or (deadline is not None and now >= deadline):
            drop.append(request)
            continue
        own = request.key
        # Most requests share one key object, and equality of keys looks into every shape.
        if first is not None and (own is key or own == key):
            # As `join` does: a call for each request would cost more than all the rest.
            rows = first.rows + request.rows
            if rows <= most:
                first.requests.append(request)
                first.rows = rows
                if deadline is not None and deadline < first.deadline:
                    first.deadline = deadline
            first.full = rows >= most
        elif first is not None and not limits.max_delay:
            continue
        elif request.trial and own not in others:
            trial = trial or request
        elif first is None:
            first, key = begin(request, most), own
        else:
            join(others, own, request, most)
        if first is not None and first.full:
            break
    return ([] if first is None else [first, *others.values()]), trial, drop


def begin(request: W, most: int) -> Group[W]:
    """Return a group of one request, so far."""
    rows = request.rows
    return Group([request], rows, must_end(request), rows >= most)


def join(groups: dict[Hashable, Group[W]], key: Hashable, request: W, most: int) -> None:
    """Let a request join the group of its shape, unless it does not fit: then the group is full."""
    group = groups.get(key)
    if group is None:
        groups[key] = begin(request, most)
        return
    rows = group.rows + request.rows
    if group.full or rows > most:
        group.full = True
        return
    group.requests.append(request)
    group.rows = rows
    group.full = rows >= most
    group.deadline = min(group.deadline, must_end(request))


def taken(
    group: Group[W], others: Iterable[W], now: float, limits: BatchBounds, costs: RunCosts
) -> tuple[Sequence[W], Sequence[W]]:
    """Return those of a group that run now, and those to be dropped.

    Args:
        group: which this may change.
        others: that wait behind a full group, of whatever shape.
        now: monotonic seconds.
        limits: bounds of a batch.
        costs: what runs took.
    """
    gone: list[W] = []
    if group.deadline < NEVER:
        known = costs.of(group.requests[0].key)
        # Nobody overtakes a request that did not fit; a step that is dropped ends its sequence.
        crowded = group.rows == limits.max_rows and not limits.sequences
        if crowded and known.certain(now):
            gone = give_way(group, others, now + known.typical(group.rows), now, limits.max_rows)
        if group.deadline < now + known.likely(group.rows):
            run, late = helped(group.requests, now, known)
            if late:
                return (), (*gone, *late)
            group.requests = list(run)
    if limits.sizes:
        group.requests = group.requests[: worth_running(rows_up_to(group.requests), limits.sizes)]
    return group.requests, gone


def give_way(group: Group[W], others: Iterable[W], end: float, now: float, most: int) -> list[W]:
    """Give places of a full group to others that have more time, and return who had them.

    Those would have little time left after the run, or none. Nobody goes for an empty place, or for
    a lower priority.

    Args:
        group: which this changes.
        others: that wait behind it, of whatever shape.
        end: of the run, in monotonic seconds.
        now: monotonic seconds.
        most: rows of a batch.
    """
    requests = group.requests
    # None has less time left than this one would: most groups are done with here.
    if group.deadline - RESERVE * (group.deadline - requests[0].arrived) >= end:
        return []
    hasty = [index for index, one in enumerate(requests) if should_end(one) < end]
    gone: list[W] = []
    # As hasty, and behind: not to be overtaken, but to go, too.
    passed: list[W] = []
    for other in islice(others, LOOK * most):
        if not hasty:
            break
        one = requests[hasty[0]]
        if not may_replace(other, one, now):
            continue
        if should_end(other) < end:
            passed.append(other)
            continue
        rows = group.rows + other.rows - one.rows
        if rows > most:
            break
        gone += (one, *passed)
        passed.clear()
        requests[hasty.pop(0)], group.rows = other, rows
    group.deadline = min(map(must_end, requests))
    return gone


def may_replace(other: W, one: W, now: float) -> bool:
    """True if a request that waits behind another one may have its place."""
    willing = not (other.cancelled or other.trial or other.delay_at <= now)
    return willing and other.level <= one.level and other.key == one.key


def helped(requests: Sequence[W], now: float, costs: ShapeCosts) -> tuple[Sequence[W], Sequence[W]]:
    """Return those of a group that should run, and those to be dropped, where some may be late.

    Nobody is dropped in doubt: as few run as let the first deadline be met, if that can be.
    Who would be late in every other run, or in one of five where not all can run, is dropped, where
    that leaves anybody; else only if none of the last runs was quick enough for any of them.
    """
    if not costs.certain(now):
        time = min(map(must_end, requests)) - now
        return requests[: max(1, fitting(rows_up_to(requests), time, costs.likely))], ()
    run, late = in_time(requests, now, costs.typical, costs.usual)
    if run:
        return run, late
    run, late = in_time(requests, now, costs.least, costs.least)
    # One is enough to see whether runs are still so slow.
    return run[:1], () if run else late


def rows_up_to(requests: Sequence[Waiting]) -> list[int]:
    """Return the rows of the first request, the first two, ... of all."""
    return list(accumulate([request.rows for request in requests]))


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
