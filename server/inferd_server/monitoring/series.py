"""The counters of one model version, as plain numbers: counting must cost next to nothing."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inferd_server.monitoring.pending import MOST, PendingNumbers, add_to_buckets
from inferd_server.monitoring.phases import Execution

SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

# What became of requests that the response cache was asked about.
HIT, SHARED_HIT, MERGED, MISS = "hit", "shared_hit", "merged", "miss"

# The histograms of a model version: a name, and the upper bounds of its buckets.
REQUEST, QUEUE, WAITED, GATHER, COMPUTE, BATCH = range(6)
BOUNDS: Sequence[tuple[float, ...]] = (SECONDS, SECONDS, SECONDS, SECONDS, SECONDS, ROWS)


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
        self._entered: PendingNumbers[tuple[()]] = PendingNumbers()
        # Of requests that succeeded: seconds in all, and those in the queue.
        self._pending: PendingNumbers[tuple[float, float]] = PendingNumbers()
        # Of batches: rows, seconds of waiting, gathering and computing, rows of padding.
        self._batches: PendingNumbers[tuple[int, float, float, float, int]] = PendingNumbers()
        self._lock = threading.Lock()

    def admitted(self) -> None:
        """Count a request in."""
        self._entered.add(())

    def withdrawn(self) -> None:
        """Take back an `admitted`: the request goes elsewhere."""
        with self._lock:
            self._in_flight -= 1

    def succeeded(self, seconds: float, queued: float) -> None:
        """Count an admitted request out that ran, after waiting for `queued` of its seconds."""
        pending = self._pending
        pending.add((seconds, queued))
        if len(pending.rows) >= MOST:
            with self._lock:
                self._add_up()

    def answered(self, code: str, seconds: float) -> None:
        """Count an admitted request out that did not run to its end, or not for itself."""
        with self._lock:
            self._add_up()
            self._in_flight -= 1
            self._observe((REQUEST,), ((seconds,),))
            self._count(code, 1)

    def cached(self, result: str) -> None:
        """Count what the response cache did with a request: HIT, SHARED_HIT, MERGED or MISS."""
        with self._lock:
            self._cached[result] = self._cached.get(result, 0) + 1

    def executed(self, run: Execution, padding: int = 0) -> None:
        """Count a batch, and the rows that it was padded with."""
        batches = self._batches
        batches.add((run.rows, run.waited, run.gather, run.compute, padding))
        if len(batches.rows) >= MOST:
            with self._lock:
                self._add_up()

    def snapshot(self) -> SeriesSnapshot:
        """Return the counters; they do not change any more."""
        with self._lock:
            self._add_up()
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
            )

    def _add_up(self) -> None:
        """Count what is pending; with the lock held."""
        # Before those that came in: whoever is among these is among those.
        found = self._pending.take()
        self._in_flight += len(self._entered.take()) - len(found)
        if found:
            self._count("OK", len(found))
            self._observe((REQUEST, QUEUE), zip(*found, strict=True))
        if batches := self._batches.take():
            *columns, padding = zip(*batches, strict=True)
            self._observe((BATCH, WAITED, GATHER, COMPUTE), columns)
            self._padding += sum(padding)

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


def add_counts(first: Count, second: Count) -> Count:
    """Return both counters as one, as old as the older."""
    return Count(first.value + second.value, min(first.created, second.created))


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
    )
