"""What a model version did since it was loaded, for ModelStatistics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from inferd_server.scheduler.job import Execution, Phases


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
    rows: int = 0
    executions: int = 0
    last: float = 0.0
    """Wall-clock seconds of the last request."""
    batches: dict[int, BatchTimes] = field(default_factory=dict)


class Statistics:
    """Counters of one model version. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._now = Snapshot()
        self._lock = threading.Lock()

    def succeeded(
        self, rows: int, total: float, encode: float, phases: Phases, wall: float
    ) -> None:
        """Count an answered request; `total` from arrival to answer, in seconds."""
        with self._lock:
            now = self._now
            now.success.add(total)
            now.queue.add(phases.queue)
            now.gather.add(phases.run.gather)
            now.compute.add(phases.run.compute)
            now.encode.add(encode)
            now.rows += rows
            now.last = wall

    def failed(self, total: float) -> None:
        """Count a request that got an error."""
        with self._lock:
            self._now.fail.add(total)

    def executed(self, run: Execution) -> None:
        """Count a batch."""
        with self._lock:
            self._now.executions += 1
            times = self._now.batches.setdefault(run.rows, BatchTimes())
            times.gather.add(run.gather)
            times.compute.add(run.compute)

    def read(self) -> Snapshot:
        """Return the counters; a copy as far as its numbers go."""
        with self._lock:
            now = self._now
            copied = {
                size: BatchTimes(
                    Duration(t.gather.count, t.gather.seconds),
                    Duration(t.compute.count, t.compute.seconds),
                )
                for size, t in sorted(now.batches.items())
            }
            durations = {
                name: Duration(getattr(now, name).count, getattr(now, name).seconds)
                for name in ("success", "fail", "queue", "gather", "compute", "encode")
            }
            return Snapshot(
                **durations,
                rows=now.rows,
                executions=now.executions,
                last=now.last,
                batches=copied,
            )
