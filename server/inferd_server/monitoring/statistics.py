"""The statistics of a model version since it was loaded, for ModelStatistics."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from inferd_server.monitoring.pending import MOST, PendingNumbers
from inferd_server.monitoring.phases import Execution, Phases


@dataclass(slots=True)
class Duration:
    """A count, and the seconds that it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count once more."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class BatchTimes:
    """Executions of one batch size."""

    gather: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Snapshot:
    """All counters of a model version."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    gather: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    encode: Duration = field(default_factory=Duration)
    hit: Duration = field(default_factory=Duration)
    """Answers without a run of their own, waiting for equal requests among their time; `success`
    counts them, too."""
    miss: Duration = field(default_factory=Duration)
    """Runs after the response cache was asked, and the asking."""
    rows: int = 0
    executions: int = 0
    last: float = 0.0
    """Wall-clock seconds of the last request."""
    batches: dict[int, BatchTimes] = field(default_factory=dict)


class Statistics:
    """Counters of one model version. Every method may be called from any thread."""

    def __init__(self) -> None:
        # Plain numbers, since every request adds to most of them. Of a request that succeeded
        # each phase counts once, so that one count is enough.
        self._successes = 0
        self._total = self._queue = self._gather = self._compute = 0.0
        self._rows = 0
        self._last = 0.0
        self._fail = Duration()
        self._hit = Duration()
        self._miss = Duration()
        self._executions = 0
        self._batches: dict[int, BatchTimes] = {}
        # Of requests that succeeded: rows, total, queue, gather, compute, wall clock.
        self._pending: PendingNumbers[tuple[int, float, float, float, float, float]] = (
            PendingNumbers()
        )
        # Of batches: rows, gather, compute.
        self._run: PendingNumbers[tuple[int, float, float]] = PendingNumbers()
        self._lock = threading.Lock()

    @property
    def successes(self) -> int:
        """Requests that were answered by a run of their own or of a batch."""
        with self._lock:
            self._add_up()
            return self._successes

    def succeeded(
        self, rows: int, total: float, prepare: float, phases: Phases, wall: float
    ) -> None:
        """Count an answered request. Its phases add up to its time.

        Args:
            rows: of the request.
            total: seconds from its arrival to its answer.
            prepare: those of them before it waited: parsing, checking, copying.
            phases: where it waited and ran; the rest went into its answer.
            wall: seconds since the epoch.
        """
        run, pending = phases.run, self._pending
        pending.add((rows, total, phases.queue, prepare + run.gather, run.compute, wall))
        if len(pending.rows) >= MOST:
            with self._lock:
                self._add_up()

    def hit(self, total: float, wall: float) -> None:
        """Count a request that was answered without a run of its own; `total` as above."""
        with self._lock:
            self._hit.add(total)
            self._last = max(self._last, wall)

    def missed(self, lookup: float) -> None:
        """Count a request that has to run after it was looked up for so many seconds."""
        with self._lock:
            self._miss.add(lookup)

    def failed(self, total: float) -> None:
        """Count a request that was admitted and got an error."""
        with self._lock:
            self._fail.add(total)

    def executed(self, run: Execution) -> None:
        """Count a batch."""
        pending = self._run
        pending.add((run.rows, run.gather, run.compute))
        if len(pending.rows) >= MOST:
            with self._lock:
                self._add_up()

    def read(self) -> Snapshot:
        """Return the counters; a copy as far as its numbers go."""
        with self._lock:
            self._add_up()
            count = self._successes
            rest = self._total - self._queue - self._gather - self._compute
            return Snapshot(
                success=Duration(count + self._hit.count, self._total + self._hit.seconds),
                fail=copied(self._fail),
                queue=Duration(count, self._queue),
                gather=Duration(count, self._gather),
                compute=Duration(count, self._compute),
                encode=Duration(count, max(0.0, rest)),
                hit=copied(self._hit),
                miss=copied(self._miss),
                rows=self._rows,
                executions=self._executions,
                last=self._last,
                batches={
                    size: BatchTimes(copied(times.gather), copied(times.compute))
                    for size, times in sorted(self._batches.items())
                },
            )

    def _add_up(self) -> None:
        """Count what is pending; with the lock held."""
        if found := self._pending.take():
            rows, totals, queues, gathers, computes, walls = zip(*found, strict=True)
            self._successes += len(found)
            self._rows += sum(rows)
            self._total += sum(totals)
            self._queue += sum(queues)
            self._gather += sum(gathers)
            self._compute += sum(computes)
            self._last = max(self._last, walls[-1])
        for size, gather, compute in self._run.take():
            self._executions += 1
            times = self._batches.setdefault(size, BatchTimes())
            times.gather.add(gather)
            times.compute.add(compute)


def copied(duration: Duration) -> Duration:
    """Return another one with the same numbers."""
    return Duration(duration.count, duration.seconds)


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the counters of one model version in several processes as those of one."""
    merged = Snapshot()
    for one in snapshots:
        for name in ("success", "fail", "queue", "gather", "compute", "encode", "hit", "miss"):
            duration: Duration = getattr(one, name)
            getattr(merged, name).add(duration.seconds, duration.count)
        merged.rows += one.rows
        merged.executions += one.executions
        merged.last = max(merged.last, one.last)
        for size, times in one.batches.items():
            into = merged.batches.setdefault(size, BatchTimes())
            into.gather.add(times.gather.seconds, times.gather.count)
            into.compute.add(times.compute.seconds, times.compute.count)
    merged.batches = dict(sorted(merged.batches.items()))
    return merged
