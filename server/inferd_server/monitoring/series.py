"""The counters of one model version, as plain numbers: counting must cost next to nothing."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import add, itemgetter
from typing import TYPE_CHECKING, TypeAlias

from inferd_server.monitoring.pending import MOST, PendingNumbers, add_to_buckets
from inferd_server.monitoring.phases import PHASES, AnsweredRequests, Execution, Phases

if TYPE_CHECKING:
    from inferd_server.monitoring.statistics import Statistics

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

# What became of requests that the response cache was asked about.
HIT, SHARED_HIT, MERGED, MISS = "hit", "shared_hit", "merged", "miss"

# Where a request missed its deadline: refused at once, while it waited, or while it ran.
ON_ARRIVAL, IN_QUEUE, AT_REPLY = "arrival", "queue", "reply"

# The histograms of a model version: a name, and the upper bounds of its buckets.
REQUEST, QUEUE, WAITED, GATHER, COMPUTE, BATCH, DECODE, REPLY = range(8)
BOUNDS: Sequence[tuple[float, ...]] = (*[SECONDS] * 5, ROWS, SECONDS, SECONDS)

SAMPLED = 61
"""Of so many requests one counts in the histograms DECODE and REPLY: all of them would cost a small
request a hundredth of its time. A prime, lest it be the same one of every batch."""

Answer: TypeAlias = tuple["Statistics", int, float, float, Phases, float]
"""Of a request that ran: who counts it besides, then what `Statistics.succeeded` is given."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram: how many values fell into each bucket, the last above all bounds."""

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Count:
    """A counter, and when it began, in seconds since the epoch."""

    value: int
    created: float


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request of a bucket that is found in a store of traces."""

    trace: str
    """The trace's id."""
    seconds: float
    wall: float
    """When it was answered, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class SeriesSnapshot:
    """The counters of one model version at one moment; can be sent."""

    created: float
    in_flight: int
    histograms: tuple[Distribution, ...]
    """In the order of BOUNDS."""
    codes: dict[str, Count] = field(default_factory=dict)
    """Requests answered after admission, by the name of their status."""
    padding: int = 0
    """Rows of batches that nobody asked for."""
    cached: dict[str, int] = field(default_factory=dict)
    """What the response cache did, by what it was."""
    phases: tuple[float, ...] = (0.0,) * len(PHASES)
    """Seconds of all requests that ran, in the order of PHASES."""
    late: dict[str, int] = field(default_factory=dict)
    """Requests that missed their deadline, by where."""
    exemplars: dict[int, TracedRequest] = field(default_factory=dict)
    """The last one of a bucket of REQUEST, by its place."""


class Series:
    """Counts for one model version. Every method may be called from any thread."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """Begin at zero; `wall` is seconds since the epoch."""
        self._wall = wall
        self._created = wall()
        self._in_flight = 0
        self._counts = [[0] * (len(bounds) + 1) for bounds in BOUNDS]
        self._totals = [0.0] * len(BOUNDS)
        self._codes: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._padding = 0
        self._cached: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._exemplars: dict[int, TracedRequest] = {}
        self._entered: PendingNumbers[tuple[()]] = PendingNumbers()
        self.admitted: Callable[[], None] = partial(self._entered.add, ())
        """Counts a request in."""
        self._phases: tuple[float, ...] = (0.0,) * len(PHASES)
        # Requests until the next one that the sampled histograms count.
        self._skipped = 0
        self.ran: PendingNumbers[Answer] = PendingNumbers()
        """Takes in the requests that ran, see `Statistics.succeeded`."""
        # Of batches: rows, seconds of waiting, gathering and computing, rows of padding.
        self._batches: PendingNumbers[tuple[int, float, float, float, int]] = PendingNumbers()
        # As long as nothing is counted.
        self._snapshot: SeriesSnapshot | None = None
        self._lock = threading.Lock()

    def withdrawn(self) -> None:
        """Take back an `admitted`: the request goes elsewhere."""
        with self._lock:
            self._snapshot = None
            self._in_flight -= 1

    def add_up(self) -> None:
        """Count what is pending, here and in the statistics that it came by."""
        with self._lock:
            self._add_up()

    def answered(self, code: str, seconds: float) -> None:
        """Count an admitted request out that did not run to its end, or not for itself."""
        with self._lock:
            self._add_up()
            self._snapshot = None
            self._in_flight -= 1
            self._observe((REQUEST,), ((seconds,),))
            self._count(code, 1)

    def cached(self, result: str) -> None:
        """Count what the response cache did with a request: HIT, SHARED_HIT, MERGED or MISS."""
        with self._lock:
            self._snapshot = None
            self._cached[result] = self._cached.get(result, 0) + 1

    def late(self, where: str) -> None:
        """Count a request that missed its deadline ON_ARRIVAL, IN_QUEUE or AT_REPLY."""
        with self._lock:
            self._snapshot = None
            self._late[where] = self._late.get(where, 0) + 1

    def traced(self, trace: str, seconds: float) -> None:
        """Keep the trace of a request that ran, as an example of its bucket."""
        bucket = bisect_left(SECONDS, seconds)
        with self._lock:
            self._snapshot = None
            self._exemplars[bucket] = TracedRequest(trace, seconds, self._wall())

    def executed(self, run: Execution, padding: int = 0) -> None:
        """Count a batch, and the rows that it was padded with."""
        batches = self._batches
        batches.add((run.rows, run.waited, run.gather, run.compute, padding))
        if len(batches.rows) >= MOST:
            with self._lock:
                self._add_up()

    def answers(self) -> tuple[int, int]:
        """Return how many requests were answered so far, and how many of them with an error."""
        with self._lock:
            self._add_up()
            count = sum(self._codes.values())
            return count, count - self._codes.get("OK", 0)

    def snapshot(self) -> SeriesSnapshot:
        """Return the counters; they do not change any more. Equal ones are the same object."""
        with self._lock:
            self._add_up()
            if self._snapshot is None:
                self._snapshot = self._counted()
            return self._snapshot

    def _counted(self) -> SeriesSnapshot:
        return SeriesSnapshot(
            self._created,
            self._in_flight,
            tuple(
                Distribution(tuple(counts), total)
                for counts, total in zip(self._counts, self._totals, strict=True)
            ),
            {code: Count(count, self._began[code]) for code, count in self._codes.items()},
            self._padding,
            dict(self._cached),
            self._phases,
            dict(self._late),
            dict(self._exemplars),
        )

    def _add_up(self) -> None:
        """Count what is pending; with the lock held."""
        # Before those that came in: whoever is among these is among those.
        found, entered, batches = self.ran.take(), self._entered.take(), self._batches.take()
        if not (found or entered or batches):
            return
        self._snapshot = None
        self._in_flight += len(entered) - len(found)
        for statistics, answers in by_statistics(found):
            statistics.take_in(answers)
            self._add_answers(answers)
        if batches:
            *columns, padding = zip(*batches, strict=True)
            self._observe((BATCH, WAITED, GATHER, COMPUTE), columns)
            self._padding += sum(padding)

    def _add_answers(self, answers: AnsweredRequests) -> None:
        """Count requests that ran; with the lock held."""
        number = len(answers.rows)
        self._count("OK", number)
        queues = [phases.queue for phases in answers.phases]
        self._observe((REQUEST, QUEUE), (answers.totals, queues))
        self._phases = tuple(map(add, self._phases, answers.seconds))
        sampled = range(self._skipped, number, SAMPLED)
        self._skipped += len(sampled) * SAMPLED - number
        if sampled:
            chosen = [answers.seconds_of(place) for place in sampled]
            self._observe(
                (DECODE, REPLY), ([one[0] for one in chosen], [one[-1] for one in chosen])
            )

    def _count(self, code: str, count: int) -> None:
        if code not in self._codes:
            self._began[code] = self._wall()
            self._codes[code] = 0
        self._codes[code] += count

    def _observe(self, histograms: Sequence[int], columns: Iterable[Sequence[float]]) -> None:
        """Add to each of the histograms the values of one column."""
        for which, values in zip(histograms, columns, strict=True):
            add_to_buckets(self._counts[which], BOUNDS[which], values)
            self._totals[which] += sum(values)


def by_statistics(found: Sequence[Answer]) -> Iterator[tuple[Statistics, AnsweredRequests]]:
    """Yield requests that ran by who counts them besides: others once a model is loaded anew."""
    for statistics, group in groupby(found, itemgetter(0)):
        _, rows, totals, decodes, phases, walls = zip(*group, strict=True)
        yield statistics, AnsweredRequests(rows, totals, decodes, phases, walls)


def add_counts(first: Count, second: Count) -> Count:
    """Return both counters as one, as old as the older."""
    return Count(first.value + second.value, min(first.created, second.created))


def latest(
    first: dict[int, TracedRequest], second: dict[int, TracedRequest]
) -> dict[int, TracedRequest]:
    """Return the examples of both, the last one of each bucket."""
    found = dict(first)
    for bucket, one in second.items():
        found[bucket] = max(found.get(bucket, one), one, key=lambda each: each.wall)
    return found


def add_series(first: SeriesSnapshot, second: SeriesSnapshot) -> SeriesSnapshot:
    """Return the counters of one model version in two processes as those of one."""
    codes = dict(first.codes)
    for code, count in second.codes.items():
        codes[code] = add_counts(codes[code], count) if code in codes else count
    return SeriesSnapshot(
        min(first.created, second.created),
        first.in_flight + second.in_flight,
        tuple(
            Distribution(
                tuple(a + b for a, b in zip(one.counts, two.counts, strict=True)),
                one.total + two.total,
            )
            for one, two in zip(first.histograms, second.histograms, strict=True)
        ),
        codes,
        first.padding + second.padding,
        dict(Tally(first.cached) + Tally(second.cached)),
        tuple(map(add, first.phases, second.phases)),
        dict(Tally(first.late) + Tally(second.late)),
        latest(first.exemplars, second.exemplars),
    )
