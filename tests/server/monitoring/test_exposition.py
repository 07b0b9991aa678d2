"""The text of /metrics is that of prometheus_client, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.monitoring.accuracy import Labelled, LabelWindow
from inferd_server.monitoring.busy import Share
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.exposition import OPENMETRICS, PLAIN, TextFormat, TextWriter
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.series import HIT, IN_QUEUE, Series
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
RUN = Execution(rows=3, waited=0.125, gather=0.0625, compute=0.25)


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


@pytest.fixture(params=[PLAIN, OPENMETRICS], ids=["plain", "openmetrics"])
def text_format(request: pytest.FixtureRequest) -> TextFormat:
    found: TextFormat = request.param
    return found


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


def text(found: SnapshotCollector, text_format: TextFormat) -> bytes:
    """Return what a writer says that has written nothing before."""
    return b"".join(TextWriter(text_format).write(found.families()))


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
    assert text(found, PLAIN) == generate_latest(registry)
    assert text(found, OPENMETRICS) == openmetrics.generate_latest(registry)


COUNTED: Mapping[str, Callable[[Series], None]] = {
    "admitted": lambda series: series.admitted(),
    "withdrawn": lambda series: series.withdrawn(),
    "answered": lambda series: series.answered("INTERNAL", 0.5),
    "ran": lambda series: Statistics(series).succeeded(1, 0.5, 0.1, Phases(0.1, RUN), 1.0),
    "executed": lambda series: series.executed(RUN, padding=2),
    "cached": lambda series: series.cached(HIT),
    "late": lambda series: series.late(IN_QUEUE),
    "traced": lambda series: series.traced("00f067aa0ba902b7a3ce929d0e0e4736", 0.5),
}
"""Everything that a model version counts."""


@pytest.mark.parametrize("count", COUNTED.values(), ids=COUNTED)
def test_the_next_answer_tells_what_was_counted_since(
    text_format: TextFormat, count: Callable[[Series], None]
) -> None:
    metrics, kept = counted(0.5, 3), TextWriter(text_format)
    before = metrics.snapshot().series
    kept.write(metrics.collector.families())
    count(metrics.of("plain", 1))
    now = metrics.snapshot()
    assert [model for model, one in now.series.items() if one != before[model]] == [("plain", 1)]
    found = SnapshotCollector(lambda: now, lambda: NOW)
    assert kept.write(found.families()) == TextWriter(text_format).write(found.families())


def test_a_model_of_which_nothing_was_counted_has_the_same_snapshot() -> None:
    metrics = counted(0.5, 3)
    one, other = metrics.snapshot().series, metrics.snapshot().series
    assert all(one[model] is other[model] for model in one)


def test_what_is_gone_is_written_no_more_and_written_again_when_it_is_back(
    text_format: TextFormat,
) -> None:
    whole = counted(0.5, 3).snapshot()
    fewer = replace(whole, series={("plain", 1): whole.series["plain", 1]})
    now = [whole, fewer, whole]
    found = SnapshotCollector(lambda: now.pop(0), lambda: NOW)
    kept = TextWriter(text_format)
    first, second, third = (b"".join(kept.write(found.families())) for _ in range(3))
    assert first == third != second
    assert b"inferd_request_seconds_bucket" in second
    assert ODD.encode() not in second.replace(b"\\", b"")
