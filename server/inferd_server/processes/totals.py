"""Totals: what all processes counted, asked for when somebody wants to know."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from inferd_engines.devices import Device

from inferd_server.models.entries import State
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.series import BATCH, COMPUTE
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge, without_gauges
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.monitoring.statistics import merge as merge_statistics
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.messages import Measured, ModelRecord
from inferd_server.processes.spawn import REPLICA, WORKER, Child

Version = tuple[str, int]
"""Name and version of a model."""
PATIENCE_S = 1.0
"""A process that does not answer is counted as it was when it did."""


class Totals:
    """Asks every process when somebody wants to know. Any thread may call any method."""

    def __init__(
        self,
        everyone: Callable[[], Sequence[Child]],
        own: Callable[[], MetricsSnapshot],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at zero.

        Args:
            everyone: returns the processes that live.
            own: returns what this process says of the server.
            clock: seconds.
        """
        self._everyone = everyone
        self._own = own
        self._clock = clock
        # When a process answered first.
        self._since: dict[Child, float] = {}
        self._latest: dict[Child, Measured] = {}
        # Of those that still owe an answer: they are stopped, most likely, and not waited for.
        self._owed: dict[Child, Future[Measured]] = {}
        self._ended = MetricsSnapshot()
        self._ended_statistics: dict[Version, Snapshot] = {}
        self._lock = threading.Lock()
        self.collector = SnapshotCollector(self.metrics)

    def metrics(self) -> MetricsSnapshot:
        """Return the metrics of the server."""
        latest, own = self._ask(), self._own()
        with self._lock:
            return merge([own, self._ended, *(one.metrics for one in latest)])

    def measured(self) -> Measured:
        """Return what all processes counted."""
        latest = self._ask()
        with self._lock:
            statistics = {version: [one] for version, one in self._ended_statistics.items()}
        for one in latest:
            for version, found in one.statistics.items():
                statistics.setdefault(version, []).append(found)
        return Measured(
            merge(one.metrics for one in latest),
            {version: merge_statistics(found) for version, found in statistics.items()},
        )

    def busy(self) -> Mapping[int, float]:
        """Return the part of the time for which the engines of each worker ran, by its index."""
        self._ask()
        now = self._clock()
        with self._lock:
            return {
                child.index: run_seconds(one.metrics) / max(1.0, now - self._since[child])
                for child, one in self._latest.items()
                if child.role == WORKER
            }

    def ended(self, child: Child) -> None:
        """Keep what a process counted that is gone, as far as it was ever asked."""
        with self._lock:
            last = self._latest.pop(child, None)
            self._since.pop(child, None)
            self._owed.pop(child, None)
            if last is None:
                return
            self._ended = merge([self._ended, without_gauges(last.metrics)])
            # What goes on in others; the rest of a worker's begins anew with the next one.
            workers = [one.statistics for c, one in self._latest.items() if c.role == WORKER]
            kept = {REPLICA: set(last.statistics), WORKER: set().union(*workers)}
            versions = kept.get(child.role, set()).intersection(last.statistics)
            self._keep({version: last.statistics[version] for version in versions})

    def forget(self, model: str) -> None:
        """Forget what dead processes counted for a model: it was loaded anew, or unloaded."""
        with self._lock:
            for version in [each for each in self._ended_statistics if each[0] == model]:
                del self._ended_statistics[version]
            drift = {key: one for key, one in self._ended.drift.items() if key[0] != model}
            self._ended = replace(self._ended, drift=drift)

    def _keep(self, statistics: Mapping[Version, Snapshot]) -> None:
        for version, found in statistics.items():
            before = self._ended_statistics.get(version, Snapshot())
            self._ended_statistics[version] = merge_statistics([before, found])

    def _ask(self) -> list[Measured]:
        children = self._everyone()
        with self._lock:
            self._settle()
            asked = [child for child in children if child not in self._owed]
        futures = [child.channel.ask(messages.Measurements()) for child in asked]
        answers(futures, PATIENCE_S)
        with self._lock:
            self._owed |= zip(asked, futures, strict=True)
            self._settle()
            return [self._latest[child] for child in children if child in self._latest]

    def _settle(self) -> None:
        """Take in the answers that came; with the lock held."""
        for child, future in list(self._owed.items()):
            if future.done():
                del self._owed[child]
                if future.exception() is None:
                    self._latest[child] = future.result()
                    self._since.setdefault(child, self._clock())


def run_seconds(metrics: MetricsSnapshot) -> float:
    """Return the seconds for which engines ran."""
    return sum(series.histograms[COMPUTE].total for series in metrics.series.values())


def counted_on(device: str, metrics: MetricsSnapshot) -> Mapping[tuple[str, str], float]:
    """Return what ran on the GPU that a process has for itself, by name of the metric and UUID."""
    rows = sum(series.histograms[BATCH].total for series in metrics.series.values())
    return {
        ("inferd_device_run_seconds_total", device): run_seconds(metrics),
        ("inferd_device_rows_total", device): rows,
    }


def states_of(
    devices: Sequence[Device],
    records: Iterable[ModelRecord],
    up: Collection[int],
    restarts: Mapping[int, int],
) -> Mapping[tuple[str, str], float]:
    """Return how the GPUs are, by name of the metric and UUID.

    Args:
        devices: by the index of their worker.
        records: of all models.
        up: workers that tried to load their models, and live.
        restarts: of workers.
    """
    serving = [record.workers for record in records if record.state == State.READY.value]
    found: dict[tuple[str, str], float] = {}
    for index, device in enumerate(devices):
        found["inferd_device_up", device.uuid] = float(index in up)
        found["inferd_device_models", device.uuid] = sum(index in where for where in serving)
        found["inferd_device_restarts_total", device.uuid] = restarts.get(index, 0)
    return found
