"""The metrics of what became of requests, of each model version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

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
    Distribution,
    SeriesSnapshot,
    TracedRequest,
    add_counts,
)
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.threads import Pauses

Model: TypeAlias = tuple[str, int]
"""A model's name and its version."""
Outcome: TypeAlias = tuple[str, str, str]
"""A model's name, its version, and the code of an answer."""
Labels: TypeAlias = dict[str, str]
K = TypeVar("K", bound=tuple[Any, ...])
C = TypeVar("C")
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


class HistogramContent(NamedTuple):
    """What a histogram of one model version says."""

    found: Distribution
    created: float
    traced: Mapping[int, TracedRequest]
    """The examples of its buckets, by their place."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram of every model version."""

    name: str
    documentation: str
    which: int
    """Its place in BOUNDS."""
    series: Mapping[Model, SeriesSnapshot]

    type = "histogram"

    @property
    def contents(self) -> Mapping[Model, HistogramContent]:
        """What it says, by model version."""
        which, no_traces = self.which, dict[int, TracedRequest]()
        return {
            model: HistogramContent(
                one.histograms[which], one.created, one.exemplars if which == REQUEST else no_traces
            )
            for model, one in self.series.items()
        }

    def metric(self) -> Metric:
        """Return it with its samples."""
        metric, pause = Metric(self.name, self.documentation, self.type), Pauses()
        for model, (found, created, traced) in self.contents.items():
            pause()
            labels, below = labels_of(*model), 0
            bounds = (*BOUNDS[self.which], "+Inf")
            for place, (bound, count) in enumerate(zip(bounds, found.counts, strict=True)):
                below += count
                within, example = {**labels, "le": str(bound)}, exemplar(traced.get(place))
                metric.add_sample(f"{self.name}_bucket", within, below, exemplar=example)
            metric.add_sample(f"{self.name}_count", labels, below)
            metric.add_sample(f"{self.name}_sum", labels, found.total)
            metric.add_sample(f"{self.name}_created", labels, created)
        return metric


@dataclass(frozen=True, slots=True)
class Values(Generic[K, C]):
    """One counter or gauge of all model versions, or of whatever else there is many of."""

    name: str
    documentation: str
    type: str
    contents: Mapping[K, C]
    """What it says, by what of; equal ones have equal samples."""
    samples: Callable[[K, C], Iterable[Sample]]

    def metric(self) -> Metric:
        """Return it with its samples."""
        metric, pause = Metric(self.name, self.documentation, self.type), Pauses()
        for about, content in self.contents.items():
            pause()
            metric.samples += self.samples(about, content)
        return metric


Family: TypeAlias = Metric | Histogram | Values[Any, Any]


def of_requests(now: MetricsSnapshot) -> Iterator[Family]:
    """Yield what became of requests, by model and version."""
    for which, name, text in HISTOGRAMS:
        yield Histogram(name, text, which, now.series)
    yield phases(now)
    yield requests(now)
    if now.refused:
        yield refused_requests(now)
    if any(one.cached for one in now.series.values()):
        yield cached(now)
    yield late(now)
    in_flight = {model: one.in_flight for model, one in now.series.items()}
    yield gauge("inferd_in_flight_requests", "Admitted and not answered", in_flight, labels_of)
    yield padded(now)
    if now.refused_calls:
        yield refused(now.refused_calls)


def gauge(
    name: str, text: str, values: Mapping[K, float], labels: Callable[..., Labels]
) -> Values[Any, float]:
    """Return a gauge with one sample of each that there is a value of."""
    return Values(
        name, text, "gauge", values, lambda about, value: [Sample(name, labels(*about), value)]
    )


def counter(
    name: str, text: str, values: Mapping[K, float], labels: Callable[..., Labels]
) -> Values[Any, float]:
    """Return likewise a counter, by its whole name."""
    return replace(
        gauge(name, text, values, labels), name=name.removesuffix("_total"), type="counter"
    )


def phases(now: MetricsSnapshot) -> Values[Model, tuple[tuple[float, ...], float]]:
    """Return the counter of where the time of requests went."""

    def samples(model: Model, found: tuple[tuple[float, ...], float]) -> Iterator[Sample]:
        for phase, seconds in zip(PHASES, found[0], strict=True):
            labels = {**labels_of(*model), "phase": phase}
            yield Sample("inferd_phase_seconds_total", labels, seconds)
            yield Sample("inferd_phase_seconds_created", labels, found[1])

    text = "Time of the requests that ran, by phase; the phases add up to it"
    found = {model: (one.phases, one.created) for model, one in now.series.items()}
    return Values("inferd_phase_seconds", text, "counter", found, samples)


def requests(now: MetricsSnapshot) -> Values[Outcome, Count]:
    """Return the counter of answers, refusals among them."""
    found = counted(now.series, now.refused)
    return counts("inferd_requests_total", "Inference requests answered", found)


def refused_requests(now: MetricsSnapshot) -> Values[Outcome, Count]:
    """Return the counter of requests that were never admitted, no failures of a model."""
    text = "Inference requests refused before they waited"
    return counts("inferd_refused_requests_total", text, now.refused)


def counts(total: str, text: str, found: Mapping[Outcome, Count]) -> Values[Outcome, Count]:
    """Return a counter by model, version and code."""
    name = total.removesuffix("_total")

    def samples(outcome: Outcome, count: Count) -> Iterable[Sample]:
        model, version, code = outcome
        labels = {**labels_of(model, version), "code": code}
        created = Sample(f"{name}_created", labels, count.created)
        return Sample(total, labels, count.value), created

    return Values(name, text, "counter", found, samples)


def late(now: MetricsSnapshot) -> Values[Model, Mapping[str, int]]:
    """Return the counter of requests that missed their deadline."""

    def samples(model: Model, found: Mapping[str, int]) -> Iterator[Sample]:
        for where in (ON_ARRIVAL, IN_QUEUE, AT_REPLY):
            labels = {**labels_of(*model), "phase": where}
            yield Sample("inferd_deadline_misses_total", labels, found.get(where, 0))

    text = "Requests that were or would be late"
    found = {model: one.late for model, one in now.series.items()}
    return Values("inferd_deadline_misses", text, "counter", found, samples)


def cached(now: MetricsSnapshot) -> Values[Model, Mapping[str, int]]:
    """Return the counter of what the response cache did."""

    def samples(model: Model, found: Mapping[str, int]) -> Iterator[Sample]:
        for result, count in found.items():
            labels = {**labels_of(*model), "result": result}
            yield Sample("inferd_cache_requests_total", labels, count)

    text = "Requests that the cache was asked about"
    found = {model: one.cached for model, one in now.series.items()}
    return Values("inferd_cache_requests", text, "counter", found, samples)


def padded(now: MetricsSnapshot) -> Values[Model, Count]:
    """Return the counter of rows that batches were padded with."""

    def samples(model: Model, count: Count) -> Iterable[Sample]:
        labels = labels_of(*model)
        return (
            Sample("inferd_padding_rows_total", labels, count.value),
            Sample("inferd_padding_rows_created", labels, count.created),
        )

    found = {model: Count(one.padding, one.created) for model, one in now.series.items()}
    text = "Rows that batches were padded with"
    return Values("inferd_padding_rows", text, "counter", found, samples)


def refused(calls: Mapping[str, int]) -> Metric:
    """Write the counter of calls that were refused for who called, or for a bound."""
    text = "Calls refused for who called, how often, or for the bounds of all callers"
    metric = Metric("inferd_refused_calls", text, "counter")
    for reason, count in sorted(calls.items()):
        metric.add_sample("inferd_refused_calls_total", {"reason": reason}, count)
    return metric


def counted(
    series: Mapping[Model, SeriesSnapshot], refused: Mapping[Outcome, Count]
) -> dict[Outcome, Count]:
    """Return all answers by model, version and code, in the order in which they began."""
    found = dict(refused)
    for (model, version), one in series.items():
        for code, count in one.codes.items():
            label = (model, str(version), code)
            found[label] = add_counts(found[label], count) if label in found else count
    return dict(sorted(found.items(), key=lambda item: item[1].created))


def labels_of(model: str, version: str | int) -> Labels:
    """Return the labels of a model version."""
    return {"model": model, "version": str(version)}


def and_label(name: str) -> Callable[[str, str, str], Labels]:
    """Return what makes the labels of a model version, and one more."""
    return lambda model, version, value: {**labels_of(model, version), name: value}


def exemplar(kept: TracedRequest | None) -> Exemplar | None:
    """Return an example as prometheus_client has it."""
    return None if kept is None else Exemplar({"trace_id": kept.trace}, kept.seconds, kept.wall)
