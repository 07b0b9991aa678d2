"""The text of /metrics is that of prometheus_client, byte for byte."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from inferd_server.monitoring.accuracy import Labelled, LabelWindow
from inferd_server.monitoring.busy import Share
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.exposition import openmetrics_text, plain_text
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.series import HIT
from inferd_server.monitoring.snapshot import (
    COUNTERS,
    DEVICE_COUNTERS,
    DEVICE_GAUGES,
    DRIFT_COUNTERS,
    DRIFT_GAUGES,
    EARLIEST,
    GAUGES,
    MODEL_COUNTERS,
    MODEL_GAUGES,
)
from inferd_server.monitoring.statistics import Statistics
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

ODD = 'm"\n\\,}é'
"""A model's name that needs every escape."""
NOW = 1.7e9 + 0.123456


def counted(seconds: float, count: int) -> Metrics:
    """Return metrics of every kind that there is."""
    metrics = Metrics(lambda: NOW)
    for model in ("plain", ODD):
        series = metrics.of(model, 1)
        statistics = Statistics(series)
        run = Execution(3, seconds / 8, seconds / 4, seconds / 2)
        for _ in range(count):
            series.admitted()
            statistics.succeeded(3, seconds, seconds / 16, Phases(seconds / 8, run), 1.0)
            series.executed(run, padding=1)
        series.traced("4bf92f3577b34da6a3ce929d0e0e4736", seconds)
        series.cached(HIT)
        metrics.loaded(model, 1, "onnxruntime/CPU", "BUILDING")
        metrics.tried(model, 1, "ok")
        metrics.refused((model, 1), "INVALID_ARGUMENT")
        labels = metrics.accuracy_of(model, 1, LabelWindow(3600.0, 1000))
        labels.add([Labelled(ODD, "a", right=False, confidence=seconds)] * count, NOW)
    metrics.refused_feedback("EXPIRED")
    metrics.refused(None, "NOT_FOUND")
    metrics.refused_call("BAD_TOKEN")
    metrics.server("1.2.3", "aio")
    metrics.watch(lambda: dict.fromkeys((*GAUGES, *EARLIEST, *COUNTERS), seconds))
    metrics.watch_models(
        lambda: {(name, ODD, 1): seconds for name in (*MODEL_GAUGES, *MODEL_COUNTERS)}
    )
    return metrics


def collector(seconds: float, count: int) -> SnapshotCollector:
    """Return what collects them, and what a supervisor tells besides."""
    now = replace(
        counted(seconds, count).snapshot(),
        devices={(name, "GPU-1"): seconds for name in (*DEVICE_GAUGES, *DEVICE_COUNTERS)},
        drifted={
            **{(name, ODD, 1, "y.max"): seconds for name in DRIFT_GAUGES},
            **{(name, ODD, 1, ""): seconds for name in DRIFT_COUNTERS},
        },
        restarts={"worker": count},
        busy={"m/1": Share(1.0, 3.0)},
    )
    return SnapshotCollector(lambda: now, lambda: NOW)


@given(
    st.floats(0.0, 1e9) | st.sampled_from([0.0, 1.0, 1e-7, 999999.5, 1e6, 123456789.0]),
    st.integers(1, 200),
)
def test_both_formats_are_written_as_prometheus_client_writes_them(
    seconds: float, count: int
) -> None:
    found = collector(seconds, count)
    registry = CollectorRegistry()
    registry.register(found)
    assert plain_text(found.families()) == generate_latest(registry)
    assert openmetrics_text(found.families()) == openmetrics.generate_latest(registry)
