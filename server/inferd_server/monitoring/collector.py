"""Writes metrics for Prometheus when it asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from inferd_server.monitoring.accuracy import AccuracyReport, AccuracySnapshot, Proportion, report
from inferd_server.monitoring.busy import WINDOW_S, ratio
from inferd_server.monitoring.request_metrics import (
    Family,
    and_label,
    counter,
    gauge,
    labels_of,
    of_requests,
)
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
    MetricsSnapshot,
)

PROPORTION_TEXTS = (
    "the share, in the window of labels",
    "the lower end of its 95 % interval",
    "the upper end of its 95 % interval",
    "of how many",
)
ACCURACY = (
    "inferd_model_accuracy",
    "inferd_model_accuracy_lower",
    "inferd_model_accuracy_upper",
    "inferd_model_accuracy_support",
)
PRECISION = (
    "inferd_model_precision",
    "inferd_model_precision_lower",
    "inferd_model_precision_upper",
    "inferd_model_precision_support",
)
RECALL = (
    "inferd_model_recall",
    "inferd_model_recall_lower",
    "inferd_model_recall_upper",
    "inferd_model_recall_support",
)
"""Names of the metrics of one proportion, in the order of its fields."""


BUSY = (
    f"Part of the last {WINDOW_S:g} s for which the busiest model's engines ran, in 0..1, whoever "
    "reads it and how often; the one number to scale on"
)


class SnapshotCollector(Collector):
    """Collects what a function returns, of this process or of several."""

    def __init__(
        self, read: Callable[[], MetricsSnapshot], wall: Callable[[], float] = time.time
    ) -> None:
        self._read = read
        self._wall = wall

    def collect(self, names: Iterable[str] | None = None) -> Iterator[Metric]:
        """Yield every metric, or those of which samples have one of some names."""
        for family in self.families():
            if names is None or any(name.startswith(family.name) for name in names):
                yield family if isinstance(family, Metric) else family.metric()

    def families(self) -> Iterator[Family]:
        """Yield every metric; most of those of model versions without their samples."""
        now = self._read()
        yield from of_requests(now)
        yield from of_engines(now)
        yield from of_server(now)
        yield from labelled(now.accuracy, self._wall())
        if now.refused_feedback:
            yield refused_tokens(now.refused_feedback)


def of_engines(now: MetricsSnapshot) -> Iterator[Family]:
    """Yield what is known of models, engines and devices."""
    engines = dict.fromkeys(sorted(now.engines), 1.0)
    yield gauge("inferd_engine", "1 for the engine that serves", engines, and_label("engine"))
    if now.plans:
        plans = dict.fromkeys(sorted(now.plans), 1.0)
        yield gauge("inferd_plan_state", "1 for where a plan stands", plans, and_label("state"))
    yield single("inferd_engine_busy_ratio", BUSY, ratio(now.busy))
    yield from named(MODEL_GAUGES, MODEL_COUNTERS, now.models, labels_of)
    yield from named(DEVICE_GAUGES, DEVICE_COUNTERS, now.devices, lambda device: {"device": device})
    yield from named(DRIFT_GAUGES, DRIFT_COUNTERS, now.drifted, labels_of_feature)
    if now.trials:
        trials, text = dict(sorted(now.trials.items())), "Trial inferences, none of any caller"
        yield counter("inferd_canary_runs_total", text, trials, and_label("outcome"))


def of_server(now: MetricsSnapshot) -> Iterator[Metric]:
    """Yield what is known of the whole server."""
    yield single("inferd_ready", "1 while the server is ready", float(bool(now.ready)))
    for name, value in now.gauges.items():
        kind = "counter" if name in COUNTERS else "gauge"
        yield single(name, {**GAUGES, **EARLIEST, **COUNTERS}[name], value, kind)
    if now.restarts:
        yield restarted(now.restarts)
    info = Metric("inferd_server", "Version and transport", "info")
    info.add_sample("inferd_server_info", dict(now.info), 1)
    yield info


def single(name: str, text: str, value: float, kind: str = "gauge") -> Metric:
    """Return a metric of one sample without labels."""
    metric = Metric(name.removesuffix("_total"), text, kind)
    metric.add_sample(name, {}, value)
    return metric


def named(
    gauges: Mapping[str, str],
    counters: Mapping[str, str],
    values: Mapping[tuple[Any, ...], float],
    labels: Callable[..., dict[str, str]],
) -> Iterator[Family]:
    """Write gauges and counters of which there is a value.

    Args:
        gauges: their texts, by name.
        counters: theirs.
        values: by name, and what it is of.
        labels: returns those of what a value is of.
    """
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for (name, *about), value in sorted(values.items()):
        found.setdefault(name, {})[tuple(about)] = value
    for texts, make in ((gauges, gauge), (counters, counter)):
        for name, text in texts.items():
            if name in found:
                yield make(name, text, found[name], labels)


def labels_of_feature(model: str, version: int, feature: str) -> dict[str, str]:
    """Return the labels of what is known of a version, or of one of its features."""
    return {**labels_of(model, version), **({"feature": feature} if feature else {})}


def restarted(restarts: Mapping[str, int]) -> Metric:
    """Write the counter of processes that were started again."""
    metric = Metric("inferd_restarts", "Processes started again", "counter")
    for process, count in restarts.items():
        metric.add_sample("inferd_restarts_total", {"process": process}, count)
    return metric


def refused_tokens(tokens: Mapping[str, int]) -> Metric:
    """Write the counter of prediction tokens that were refused."""
    metric = Metric("inferd_refused_feedback", "Prediction tokens that were refused", "counter")
    for reason, count in sorted(tokens.items()):
        metric.add_sample("inferd_refused_feedback_total", {"reason": reason}, count)
    return metric


def labelled(found: Mapping[tuple[str, int], AccuracySnapshot], now: float) -> Iterator[Metric]:
    """Write how often models were right, of those that labels came for."""
    if not found:
        return
    counter = Metric(
        "inferd_feedback_labels", "True labels that came, by what they said", "counter"
    )
    reports: dict[tuple[str, int], AccuracyReport] = {}
    for model, labels in sorted(found.items()):
        for result, count in (("right", labels.right), ("wrong", labels.wrong)):
            about = {**labels_of(*model), "result": result}
            counter.add_sample("inferd_feedback_labels_total", about, count)
        told = report(labels, now)
        if told is not None:
            reports[model] = told
    yield counter
    yield from accuracies(reports)


def accuracies(reports: Mapping[tuple[str, int], AccuracyReport]) -> Iterator[Metric]:
    """Write the gauges of what the labels of a window say."""
    overall, precision, recall = [], [], []
    confidence = Metric("inferd_model_confidence", "Mean confidence of the labelled rows", "gauge")
    for model, told in reports.items():
        labels = labels_of(*model)
        overall.append((labels, told.accuracy))
        precision += [({**labels, "class": name}, s) for name, s in sorted(told.precision.items())]
        recall += [({**labels, "class": name}, s) for name, s in sorted(told.recall.items())]
        if told.confidence is not None:
            confidence.add_sample(confidence.name, labels, told.confidence)
    yield from proportions(ACCURACY, "Labelled rows that were right", overall)
    yield from proportions(PRECISION, "Rows predicted as a class that are", precision)
    yield from proportions(RECALL, "Rows of a class that were predicted as it", recall)
    if confidence.samples:
        yield confidence


def proportions(
    names: Sequence[str], text: str, found: Sequence[tuple[Mapping[str, str], Proportion]]
) -> Iterator[Metric]:
    """Write a share, the bounds of its interval, and of how many rows it is one."""
    for position, (name, what) in enumerate(zip(names, PROPORTION_TEXTS, strict=True)):
        metric = Metric(name, f"{text}: {what}", "gauge")
        for labels, proportion in found:
            metric.add_sample(name, dict(labels), proportion[position])
        if metric.samples:
            yield metric
