"""Writes metrics for Prometheus when it asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from inferd_server.monitoring.accuracy import AccuracyReport, AccuracySnapshot, Proportion, report
from inferd_server.monitoring.busy import WINDOW_S, ratio
from inferd_server.monitoring.phases import PHASES
from inferd_server.monitoring.series import (
    AT_REPLY,
    BATCH,
    BOUNDS,
    COMPUTE,
    DECODE,
    GATHER,
    IN_QUEUE,
    ON_ARRIVAL,
    QUEUE,
    REPLY,
    REQUEST,
    SAMPLED,
    WAITED,
    Count,
    SeriesSnapshot,
    TracedRequest,
    add_counts,
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

HISTOGRAMS: Sequence[tuple[int, str, str]] = (
    (
        REQUEST,
        "inferd_request_seconds",
        "From the request being parsed to its answer being handed over",
    ),
    (QUEUE, "inferd_queue_seconds", "From a request being admitted to its batch being taken"),
    (WAITED, "inferd_batch_wait_seconds", "A free engine waiting for a batch to fill"),
    (GATHER, "inferd_gather_seconds", "Making a taken batch contiguous"),
    (COMPUTE, "inferd_compute_seconds", "The engine, one batch"),
    (BATCH, "inferd_batch_rows", "Rows of the batches that ran"),
    (
        DECODE,
        "inferd_decode_seconds",
        f"From a request being there to it being admitted; of every {SAMPLED}st that ran",
    ),
    (
        REPLY,
        "inferd_reply_seconds",
        f"From the engine to the encoded answer; of every {SAMPLED}st request that ran",
    ),
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


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram of every model version."""

    name: str
    documentation: str
    which: int
    """Its place in BOUNDS."""
    series: Mapping[tuple[str, int], SeriesSnapshot]

    type = "histogram"

    def metric(self) -> Metric:
        """Return it with its samples."""
        metric = Metric(self.name, self.documentation, self.type)
        for model, series in self.series.items():
            labels = labels_of(*model)
            found, traced = series.histograms[self.which], self.traced(series)
            below = 0
            bounds = (*BOUNDS[self.which], "+Inf")
            for place, (bound, count) in enumerate(zip(bounds, found.counts, strict=True)):
                below += count
                within, example = {**labels, "le": str(bound)}, exemplar(traced.get(place))
                metric.add_sample(f"{self.name}_bucket", within, below, exemplar=example)
            metric.add_sample(f"{self.name}_count", labels, below)
            metric.add_sample(f"{self.name}_sum", labels, found.total)
            metric.add_sample(f"{self.name}_created", labels, series.created)
        return metric

    def traced(self, series: SeriesSnapshot) -> Mapping[int, TracedRequest]:
        """Return the examples of a model version's buckets, by their place."""
        return series.exemplars if self.which == REQUEST else {}


class SnapshotCollector(Collector):
    """Collects what a function returns, of this process or of several."""

    def __init__(
        self, read: Callable[[], MetricsSnapshot], wall: Callable[[], float] = time.time
    ) -> None:
        self._read = read
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for family in self.families():
            yield family.metric() if isinstance(family, Histogram) else family

    def families(self) -> Iterator[Metric | Histogram]:
        """Yield every metric; histograms, which have most of the samples, without them."""
        now = self._read()
        yield from of_requests(now)
        yield from of_engines(now)
        yield from of_server(now)
        yield from labelled(now.accuracy, self._wall())
        if now.refused_feedback:
            yield refused_tokens(now.refused_feedback)


def of_requests(now: MetricsSnapshot) -> Iterator[Metric | Histogram]:
    """Yield what became of requests, by model and version."""
    for which, name, text in HISTOGRAMS:
        yield Histogram(name, text, which, now.series)
    yield phases(now)
    yield requests(now)
    if now.refused:
        yield refused_requests(now.refused)
    yield from cached(now)
    yield late(now)
    in_flight = Metric("inferd_in_flight_requests", "Admitted and not answered", "gauge")
    for model, series in now.series.items():
        in_flight.add_sample(in_flight.name, labels_of(*model), series.in_flight)
    yield in_flight
    yield padded(now)
    if now.refused_calls:
        yield refused(now.refused_calls)


def of_engines(now: MetricsSnapshot) -> Iterator[Metric]:
    """Yield what is known of models, engines and devices."""
    yield marked("inferd_engine", "1 for the engine that serves", "engine", now.engines)
    if now.plans:
        yield marked("inferd_plan_state", "1 for where a plan stands", "state", now.plans)
    yield single("inferd_engine_busy_ratio", BUSY, ratio(now.busy))
    yield from named(MODEL_GAUGES, MODEL_COUNTERS, now.models, labels_of)
    yield from named(DEVICE_GAUGES, DEVICE_COUNTERS, now.devices, lambda device: {"device": device})
    yield from named(DRIFT_GAUGES, DRIFT_COUNTERS, now.drifted, labels_of_feature)
    if now.trials:
        yield tried(now.trials)


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
) -> Iterator[Metric]:
    """Write gauges and counters of which there is a value.

    Args:
        gauges: their texts, by name.
        counters: theirs.
        values: by name, and what it is of.
        labels: returns those of what a value is of.
    """
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for (name, *about), value in sorted(values.items()):
        found.setdefault(name, []).append((labels(*about), value))
    for texts, kind in ((gauges, "gauge"), (counters, "counter")):
        for name, text in texts.items():
            if name in found:
                metric = Metric(name.removesuffix("_total"), text, kind)
                for own, value in found[name]:
                    metric.add_sample(name, own, value)
                yield metric


def labels_of_feature(model: str, version: int, feature: str) -> dict[str, str]:
    """Return the labels of what is known of a version, or of one of its features."""
    return {**labels_of(model, version), **({"feature": feature} if feature else {})}


def restarted(restarts: Mapping[str, int]) -> Metric:
    """Write the counter of processes that were started again."""
    metric = Metric("inferd_restarts", "Processes started again", "counter")
    for process, count in restarts.items():
        metric.add_sample("inferd_restarts_total", {"process": process}, count)
    return metric


def tried(trials: Mapping[tuple[str, str, str], int]) -> Metric:
    """Write the counter of what trial inferences said."""
    metric = Metric("inferd_canary_runs", "Trial inferences, none of any caller", "counter")
    for (model, version, outcome), count in sorted(trials.items()):
        labels = {**labels_of(model, version), "outcome": outcome}
        metric.add_sample("inferd_canary_runs_total", labels, count)
    return metric


def refused(calls: Mapping[str, int]) -> Metric:
    """Write the counter of calls that were refused for who called, or for a bound."""
    text = "Calls refused for who called, how often, or for the bounds of all callers"
    metric = Metric("inferd_refused_calls", text, "counter")
    for reason, count in sorted(calls.items()):
        metric.add_sample("inferd_refused_calls_total", {"reason": reason}, count)
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


def padded(now: MetricsSnapshot) -> Metric:
    """Write the counter of rows that batches were padded with."""
    metric = Metric("inferd_padding_rows", "Rows that batches were padded with", "counter")
    for model, series in now.series.items():
        metric.add_sample("inferd_padding_rows_total", labels_of(*model), series.padding)
        metric.add_sample("inferd_padding_rows_created", labels_of(*model), series.created)
    return metric


def marked(name: str, text: str, label: str, found: Iterable[tuple[str, str, str]]) -> Metric:
    """Write a gauge that is 1 for what is true of a model version."""
    metric = Metric(name, text, "gauge")
    for model, version, value in sorted(found):
        metric.add_sample(name, {**labels_of(model, version), label: value}, 1)
    return metric


def labels_of(model: str, version: str | int) -> dict[str, str]:
    """Return the labels of a model version."""
    return {"model": model, "version": str(version)}


def exemplar(kept: TracedRequest | None) -> Exemplar | None:
    """Return an example as prometheus_client has it."""
    return None if kept is None else Exemplar({"trace_id": kept.trace}, kept.seconds, kept.wall)


def phases(now: MetricsSnapshot) -> Metric:
    """Write the counter of where the time of requests went."""
    text = "Time of the requests that ran, by phase; the phases add up to it"
    metric = Metric("inferd_phase_seconds", text, "counter")
    for model, series in now.series.items():
        for phase, seconds in zip(PHASES, series.phases, strict=True):
            labels = {**labels_of(*model), "phase": phase}
            metric.add_sample("inferd_phase_seconds_total", labels, seconds)
            metric.add_sample("inferd_phase_seconds_created", labels, series.created)
    return metric


def requests(now: MetricsSnapshot) -> Metric:
    """Write the counter of answers, refusals among them."""
    metric = Metric("inferd_requests", "Inference requests answered", "counter")
    for (model, version, code), count in counted(now.series, now.refused).items():
        labels = {**labels_of(model, version), "code": code}
        metric.add_sample("inferd_requests_total", labels, count.value)
        metric.add_sample("inferd_requests_created", labels, count.created)
    return metric


def refused_requests(refused: Mapping[tuple[str, str, str], Count]) -> Metric:
    """Write the counter of requests that were never admitted, which are no failures of a model."""
    text = "Inference requests refused before they waited"
    metric = Metric("inferd_refused_requests", text, "counter")
    for (model, version, code), count in refused.items():
        labels = {**labels_of(model, version), "code": code}
        metric.add_sample("inferd_refused_requests_total", labels, count.value)
        metric.add_sample("inferd_refused_requests_created", labels, count.created)
    return metric


def late(now: MetricsSnapshot) -> Metric:
    """Write the counter of requests that missed their deadline."""
    metric = Metric("inferd_deadline_misses", "Requests that were or would be late", "counter")
    for model, series in now.series.items():
        for where in (ON_ARRIVAL, IN_QUEUE, AT_REPLY):
            labels = {**labels_of(*model), "phase": where}
            count = series.late.get(where, 0)
            metric.add_sample("inferd_deadline_misses_total", labels, count)
    return metric


def cached(now: MetricsSnapshot) -> Iterator[Metric]:
    """Write the counter of what the response cache did, if any model has one."""
    metric = Metric("inferd_cache_requests", "Requests that the cache was asked about", "counter")
    for model, series in now.series.items():
        for result, count in series.cached.items():
            labels = {**labels_of(*model), "result": result}
            metric.add_sample("inferd_cache_requests_total", labels, count)
    if metric.samples:
        yield metric


def counted(
    series: Mapping[tuple[str, int], SeriesSnapshot], refused: Mapping[tuple[str, str, str], Count]
) -> dict[tuple[str, str, str], Count]:
    """Return all answers by model, version and code, in the order in which they began."""
    found = dict(refused)
    for (model, version), one in series.items():
        for code, count in one.codes.items():
            label = (model, str(version), code)
            found[label] = add_counts(found[label], count) if label in found else count
    return dict(sorted(found.items(), key=lambda item: item[1].created))
