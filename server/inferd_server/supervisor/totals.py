"""The counters of all processes as those of one server; what a dead one counted is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from prometheus_client import CollectorRegistry

from inferd_server.control import messages
from inferd_server.control.channel import answers
from inferd_server.control.measurements import Measured
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge, without_gauges
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.monitoring.statistics import merge as merge_statistics
from inferd_server.supervisor.spawn import REPLICA, Child

Version = tuple[str, int]
"""Name and version of a model."""
PATIENCE_S = 1.0
"""A process that does not answer is counted as it was when it did."""


class Totals:
    """Asks every process when somebody wants to know. Any thread may call any method."""

    def __init__(
        self, everyone: Callable[[], Sequence[Child]], own: Callable[[], MetricsSnapshot]
    ) -> None:
        """Begin at zero.

        Args:
            everyone: returns the processes that live.
            own: returns what this process says of the server.
        """
        self._everyone = everyone
        self._own = own
        self._latest: dict[Child, Measured] = {}
        # Of those that still owe an answer: they are stopped, most likely, and not waited for.
        self._owed: dict[Child, Future[Measured]] = {}
        self._ended = MetricsSnapshot()
        self._ended_statistics: dict[Version, Snapshot] = {}
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(SnapshotCollector(self.metrics))

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

    def ended(self, child: Child) -> None:
        """Keep what a process counted that is gone, as far as it was ever asked."""
        with self._lock:
            last = self._latest.pop(child, None)
            self._owed.pop(child, None)
            if last is None:
                return
            self._ended = merge([self._ended, without_gauges(last.metrics)])
            if child.role == REPLICA:
                # Its models go on in others; those of a worker begin anew with the next one.
                self._keep(last.statistics)

    def forget(self, model: str) -> None:
        """Forget what dead processes counted for a model: it was loaded anew, or unloaded."""
        with self._lock:
            for version in [each for each in self._ended_statistics if each[0] == model]:
                del self._ended_statistics[version]

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
