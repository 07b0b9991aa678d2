"""The statistics of a model version since it was loaded, for ModelStatistics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from inferd_server.monitoring.pending import MOST, PendingNumbers
from inferd_server.monitoring.phases import AnsweredRequests, Execution, Phases
from inferd_server.monitoring.series import Series


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

    def __init__(self, series: Series | None = None) -> None:
        """Begin at zero.

        Args:
            series: of the model version, where requests that ran count, too, with the same call:
                it goes on over reloads. None: nobody reads it.
        """
        self._series = Series(time.time) if series is None else series
        self._ran = self._series.ran
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
        # Of batches: rows, gather, compute.
        self._run: PendingNumbers[tuple[int, float, float]] = PendingNumbers()
        self._lock = threading.Lock()

    @property
    def successes(self) -> int:
        """Requests that were answered by a run of their own or of a batch."""
        self._series.add_up()
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
        ran = self._ran
        ran.add((self, rows, total, prepare, phases, wall))
        if len(ran.rows) >= MOST:
            self._series.add_up()

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
                self._add_up_runs()

    def read(self) -> Snapshot:
        """Return the counters; a copy as far as its numbers go."""
        self._series.add_up()
        with self._lock:
            self._add_up_runs()
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

    def take_in(self, answers: AnsweredRequests) -> None:
        """Count requests that ran, which `Series.add_up` brings."""
        with self._lock:
            self._successes += len(answers.rows)
            self._rows += sum(answers.rows)
            self._total += sum(answers.totals)
            decode, queue, wait, gather, compute, _ = answers.seconds
            self._queue += queue + wait
            self._gather += decode + gather
            self._compute += compute
            self._last = max(self._last, answers.walls[-1])

    def _add_up_runs(self) -> None:
        """Count the batches that are pending; with the lock held."""
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
