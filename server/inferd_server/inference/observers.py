"""Observers: what looks at requests beside their way, such as the recorder, drift and traces."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping

from inferd_server.errors import InferdError
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.tracing import Tracing
from inferd_server.models.entries import Models
from inferd_server.models.reference_data import watched
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.watch import DriftWatch, Watched
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.recorder import make_recorder
from inferd_server.monitoring.samples import Consumer, Tap
from inferd_server.monitoring.tracing.sender import make_sender
from inferd_server.settings.model import Settings

FLUSH_S = 5.0
"""For samples to be looked at, and for the recording to be written, once no more come."""


class Observers:
    """All of a process. Any thread may call."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        metrics: Metrics,
        regions: RegionTable,
        clock: Callable[[], float],
        references: References | None = None,
    ) -> None:
        """Begin to look, as the settings say.

        Args:
            settings: of the server.
            models: that are asked for.
            metrics: told of what they see.
            regions: of shared memory, where inputs of requests may be.
            clock: monotonic seconds.
            references: of the models, where this process makes them; None: another one does.
        """
        samples = settings.monitoring
        self.drift = drift_watch(settings, models, references, clock)
        self.recorder = make_recorder(samples, clock)
        consumers: list[Consumer] = [self.drift] if settings.drift.drift_cpu_share else []
        if self.recorder is not None:
            consumers.append(self.recorder)
        self.tap = Tap(consumers, samples.sample_max_bytes, clock) if consumers else None
        self.sampling = Sampling(
            self.tap,
            samples.sample_share,
            regions,
            clock,
            time.time,
            random.getrandbits,
            lambda handle: self.recorder is not None or bool(handle.drift),
        )
        self._traces = make_sender(settings.tracing, clock)
        self.tracing: Tracing | None = None
        if self._traces is not None:
            share = settings.tracing.trace_share
            self.tracing = Tracing(share, self._traces.put, random.getrandbits, clock)
        self._tell(metrics)

    def counters(self) -> Mapping[str, float]:
        """Return what /metrics tells of traces."""
        return {} if self._traces is None else self._traces.counters()

    def close(self) -> None:
        """Look at what was taken so far, and at no more."""
        if self.tap is not None:
            self.tap.flush(FLUSH_S)
        if self.recorder is not None:
            self.recorder.close(FLUSH_S)
        if self._traces is not None:
            self._traces.close(FLUSH_S)

    def _tell(self, metrics: Metrics) -> None:
        metrics.watch_drift(self.drift.counts)
        if self.tap is not None:
            metrics.watch_models(self.drift.counters)
            metrics.watch_models(self.tap.counters)
        if self.recorder is not None:
            metrics.watch_models(self.recorder.counters)


def drift_watch(
    settings: Settings,
    models: Models,
    references: References | None,
    clock: Callable[[], float],
) -> DriftWatch:
    """Return what compares the requests of this process with references.

    Args:
        settings: of the server.
        models: that are asked for.
        references: that this process makes; None: another one does, in the folder of settings.
        clock: monotonic seconds.
    """
    drift = settings.drift
    if references is None:
        references = References(settings.reference_folder(os.environ))

    def how(name: str, version: str) -> Watched | None:
        try:
            handle = models.choose(name, version).handle
        except InferdError:
            return None
        return None if handle is None else watched(handle, drift.drift_learn_rows)

    return DriftWatch(how, references, drift.drift_cpu_share, clock)
