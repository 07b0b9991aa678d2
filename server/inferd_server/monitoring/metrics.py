"""The metrics of a process. Labels come from loaded models and fixed sets, so they stay few."""

from __future__ import annotations

import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from inferd_server.memory import own_bytes
from inferd_server.monitoring.accuracy import AccuracyWindow, LabelWindow
from inferd_server.monitoring.busy import Share
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.drift.windows import DriftCounts, Key
from inferd_server.monitoring.exporter import MetricsServer
from inferd_server.monitoring.recent import LogLine
from inferd_server.monitoring.series import Count, Series, SeriesSnapshot
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.threads import Pauses

__all__ = ["Metrics", "MetricsServer"]
UNKNOWN = ("", "")


class Metrics:
    """Counts everything that happens. Every method may be called from any thread."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        lines: Callable[[], tuple[LogLine, ...]] = tuple,
    ) -> None:
        """Begin at zero.

        Args:
            wall: seconds since the epoch.
            lines: returns the last lines of the log.
        """
        self._wall = wall
        self._lines = lines
        self._series: dict[tuple[str, int], Series] = {}
        self._refused: dict[tuple[str, str, str], Count] = {}
        # Model, version, engine, and where the plan stands.
        self._engines: Tally[tuple[str, str, str, str]] = Tally()
        # Model, version and outcome of trials.
        self._trials: Tally[tuple[str, str, str]] = Tally()
        # Reasons of calls that were refused for who called, or for a bound.
        self._refused_calls: Tally[str] = Tally()
        self._accuracy: dict[tuple[str, int], AccuracyWindow] = {}
        self._refused_feedback: Tally[str] = Tally()
        self._ready: bool | None = None
        self._info: dict[str, str] = {}
        self._gauges: Callable[[], Mapping[str, float]] = dict
        self._drift: Callable[[], Mapping[Key, DriftCounts]] = dict
        self._drifted: Callable[[], Mapping[tuple[str, str, int, str], float]] = dict
        self._models: list[Callable[[], Mapping[tuple[str, str, int], float]]] = []
        self._devices: Callable[[], Mapping[tuple[str, str], float]] = dict
        self._shares: Callable[[], Mapping[str, Share]] = dict
        self._lock = threading.Lock()
        self.collector = SnapshotCollector(self.snapshot, wall)
        self.registry = CollectorRegistry()
        """For whoever collects by prometheus_client."""
        self.registry.register(self.collector)

    def server(self, version: str, transport: str) -> None:
        """Tell what runs."""
        with self._lock:
            self._info = {"version": version, "transport": transport}

    def watch(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Take these into every snapshot, by their names in GAUGES and COUNTERS."""
        self._gauges = gauges

    def watch_models(self, values: Callable[[], Mapping[tuple[str, str, int], float]]) -> None:
        """Take these, too, into every snapshot, by their names in MODEL_GAUGES or MODEL_COUNTERS.

        Each with model and version.
        """
        self._models.append(values)

    def watch_drift(self, counts: Callable[[], Mapping[Key, DriftCounts]]) -> None:
        """Take into every snapshot what was measured of requests."""
        self._drift = counts

    def watch_drifted(
        self, gauges: Callable[[], Mapping[tuple[str, str, int, str], float]]
    ) -> None:
        """Take these into every snapshot, by their names in DRIFT_GAUGES and DRIFT_COUNTERS."""
        self._drifted = gauges

    def watch_engines(self, shares: Callable[[], Mapping[str, Share]]) -> None:
        """Take these into every snapshot, see `BusyWindow.shares`."""
        self._shares = shares

    def watch_devices(self, gauges: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        """Take these into every snapshot, by their names in DEVICE_GAUGES and the GPU's UUID."""
        self._devices = gauges

    def ready(self, ready: bool) -> None:
        """Tell whether the server is ready."""
        with self._lock:
            self._ready = ready

    def loaded(self, model: str, version: int, engine: str, plan_state: str = "") -> None:
        """Tell which engine serves a model version, and where its plan stands, if it has one."""
        with self._lock:
            self._engines[model, str(version), engine, plan_state] += 1

    def unloaded(self, model: str, version: int, engine: str, plan_state: str = "") -> None:
        """Take back a `loaded`; after a reload, another one may be left."""
        labels = (model, str(version), engine, plan_state)
        with self._lock:
            self._engines[labels] -= 1
            if not self._engines[labels]:
                del self._engines[labels]

    def of(self, model: str, version: int) -> Series:
        """Return the counters of a model version, which go on over reloads.

        For those who count often: finding them costs more than adding to them.
        """
        with self._lock:
            found = self._series.get((model, version))
            if found is None:
                found = self._series[model, version] = Series(self._wall)
            return found

    def refused(self, model: tuple[str, int] | None, code: str) -> None:
        """Count a request that was never admitted; None for a model that is not known."""
        labels = UNKNOWN if model is None else (model[0], str(model[1]))
        with self._lock:
            before = self._refused.get((*labels, code)) or Count(0, self._wall())
            self._refused[(*labels, code)] = Count(before.value + 1, before.created)

    def answers(self) -> tuple[int, int]:
        """Return how many requests were answered so far, and how many of them with an error."""
        with self._lock:
            series, refused = tuple(self._series.values()), self._refused.values()
            never = sum(count.value for count in refused)
        found = [one.answers() for one in series]
        failed = never + sum(errors for _, errors in found)
        return never + sum(count for count, _ in found), failed

    def refused_call(self, reason: str) -> None:
        """Count a call of any method that was refused for who called, how often, or a bound."""
        with self._lock:
            self._refused_calls[reason] += 1

    def tried(self, model: str, version: int, outcome: str) -> None:
        """Count what a trial inference said, which is no caller's request."""
        with self._lock:
            self._trials[model, str(version), outcome] += 1

    def accuracy_of(self, model: str, version: int, window: LabelWindow) -> AccuracyWindow:
        """Return what counts the true labels of a model version."""
        with self._lock:
            found = self._accuracy.get((model, version))
            if found is None:
                found = self._accuracy[model, version] = AccuracyWindow(window)
            return found

    def refused_feedback(self, reason: str) -> None:
        """Count a prediction token that was refused."""
        with self._lock:
            self._refused_feedback[reason] += 1

    def snapshot(self) -> MetricsSnapshot:
        """Return everything counted so far, as plain data that can be sent and merged."""
        # Without the lock: rows may have to be measured first.
        drift, drifted = self._drift(), self._drifted()
        series, models = self._of_models()
        with self._lock:
            return MetricsSnapshot(
                series,
                dict(self._refused),
                frozenset(found[:3] for found in self._engines),
                self._ready,
                dict(self._info),
                {**self._gauges(), "inferd_host_memory_bytes": own_bytes()},
                plans=frozenset((m, v, state) for m, v, _, state in self._engines if state),
                trials=dict(self._trials),
                refused_calls=dict(self._refused_calls),
                accuracy={model: found.snapshot() for model, found in self._accuracy.items()},
                refused_feedback=dict(self._refused_feedback),
                drift=drift,
                drifted=drifted,
                models=models,
                devices=self._devices(),
                busy=self._shares(),
                lines=self._lines(),
            )

    def _of_models(
        self,
    ) -> tuple[Mapping[tuple[str, int], SeriesSnapshot], Mapping[tuple[str, str, int], float]]:
        """Return what is told of each model version: there may be many."""
        with self._lock:
            counting = dict(self._series)
        series, pause = dict[tuple[str, int], SeriesSnapshot](), Pauses()
        for model, found in counting.items():
            series[model] = found.snapshot()
            pause()
        return series, {key: value for read in self._models for key, value in read().items()}
