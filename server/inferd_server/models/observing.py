"""The observer of a version's batches: they are counted."""

from __future__ import annotations

from inferd_server.batching.batch_size import padding
from inferd_server.models.version import Handle
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Execution
from inferd_server.monitoring.series import Series


class Observing:
    """Observes the batches of one model version; called on the threads of its instances."""

    def __init__(self, name: str, version: int, metrics: Metrics) -> None:
        self._name = name
        self._version = version
        self._metrics = metrics
        self._handle: Handle | None = None
        self._series: Series | None = None

    def begin(self, handle: Handle) -> None:
        """Note whose batches they are; before the first one."""
        self._handle = handle
        self._series = self._metrics.of(self._name, self._version)

    def __call__(self, run: Execution) -> None:
        """Count a batch."""
        handle, series = self._handle, self._series
        assert handle is not None
        assert series is not None
        handle.statistics.executed(run)
        sizes = handle.bounds.sizes
        series.executed(run, padding(run.rows, sizes) if sizes else 0)
