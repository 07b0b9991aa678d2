"""The observer of a version's batches: they are counted, and the next ones may be other ones."""

from __future__ import annotations

import threading
from collections.abc import Callable

from inferd_server.batching.decision import padding
from inferd_server.batching.latency_target import Chosen, LatencyTarget
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Execution
from inferd_server.monitoring.series import Series


class Observing:
    """Observes the batches of one model version; called on the threads of its instances."""

    def __init__(
        self, name: str, version: int, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._version = version
        self._metrics = metrics
        self._clock = clock
        self._handle: Handle | None = None
        self._series: Series | None = None
        self._steering: LatencyTarget | None = None
        self._lock = threading.Lock()

    def begin(self, handle: Handle) -> None:
        """Note whose batches they are; before the first one."""
        self._handle = handle
        self._series = self._metrics.of(self._name, self._version)
        self._steering = steering_of(handle.config.target_p99_ms, handle.bounds)

    def __call__(self, run: Execution) -> None:
        """Count a batch, and steer by it."""
        handle, series = self._handle, self._series
        assert handle is not None
        assert series is not None
        handle.statistics.executed(run)
        sizes = handle.bounds.sizes
        series.executed(run, padding(run.rows, sizes) if sizes else 0)
        if self._steering is not None:
            self._steer(handle, series, self._steering, run)

    def _steer(
        self, handle: Handle, series: Series, steering: LatencyTarget, run: Execution
    ) -> None:
        with self._lock:
            chosen = steering.observe(run, self._clock())
        if chosen is not None:
            handle.queue.limit(chosen.rows, chosen.delay)
            series.steered(chosen.rows, chosen.delay)


def steering_of(target_ms: float | None, bounds: ModelBounds) -> LatencyTarget | None:
    """Return what keeps a model below its target; None without one."""
    if target_ms is None or not bounds.max_batch_size:
        return None
    # The target bounds the delay where nothing else does.
    delay = bounds.max_queue_delay or target_ms / 2000
    largest = Chosen(bounds.limits.max_rows, delay)
    return LatencyTarget(target_ms / 1000, Chosen(largest.rows, bounds.max_queue_delay), largest)
