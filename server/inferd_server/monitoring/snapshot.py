"""All metrics of a process at one moment, as plain data, and those of several as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from inferd_server.monitoring.accuracy import AccuracySnapshot, add_accuracy
from inferd_server.monitoring.busy import Share, add_shares
from inferd_server.monitoring.drift.windows import DriftCounts, add_drift
from inferd_server.monitoring.series import Count, SeriesSnapshot, add_counts, add_series

K = TypeVar("K")
V = TypeVar("V", int, float)
GAUGES: Mapping[str, str] = {
    "inferd_request_bytes_held": "Requests that were received and have no answer yet",
    "inferd_answer_bytes_unsent": "Answers that wait for their callers to take them",
    "inferd_slots_in_use": "Requests of front processes that hold shared memory",
    "inferd_input_bytes_held": "Shared memory set aside for inputs, idle lanes among it",
    "inferd_lane_bytes": "Memory of lanes, in which requests of one shape lie side by side",
    "inferd_idle_lane_bytes": "Memory of lanes without a request: given back when another needs it",
    "inferd_cache_bytes": "Answers kept for equal requests, and what keeping them costs",
    "inferd_cache_entries": "Answers kept for equal requests",
    "inferd_cache_waiting_requests": "Requests that wait for an equal one in flight",
    "inferd_cache_redis_available": "Processes that ask Redis; the others leave it alone a while",
    "inferd_requests_held": "Requests whose worker process died, and that wait for the next one",
    "inferd_store_failed_versions": "Versions that the store wants served, and that do not load",
    "inferd_store_unreachable": "1 while the store cannot be read: what serves goes on",
    "inferd_alerts_firing": "Alerts that somebody was told of and that are not over",
    "inferd_alerts_unsent": "What began or ended and did not arrive at a sink of alerts yet",
    "inferd_host_memory_bytes": "Memory that the server's processes hold, each for itself",
    "inferd_shared_memory_bytes": "Memory in use that processes of the server share",
    "inferd_processes": "Processes of the server that live, this one among them",
}
"""Names and texts of gauges that add up over processes."""
MODEL_GAUGES: Mapping[str, str] = {
    "inferd_waiting_requests": "Requests that wait for a run",
    "inferd_waiting_rows": "Rows of them, but for those of streams that are not sent on yet",
    "inferd_open_sequences": "Sequences that may go on",
}
"""Likewise, of each model version."""
MODEL_COUNTERS: Mapping[str, str] = {
    "inferd_drift_rows_total": "Rows of samples that were measured to look for drift",
    "inferd_drift_passed_over_total": "Samples that were not, for the share of a core was used up",
    "inferd_samples_dropped_total": "Samples that too many others waited before",
    "inferd_recorded_samples_total": "Samples that are in a file of the recording",
    "inferd_recording_dropped_total": "Samples that could not be recorded",
    "inferd_recording_parts_total": "Files written to the recording",
    "inferd_recording_bytes_total": "Bytes written to the recording",
}
"""Likewise, of counters."""
DRIFT_GAUGES: Mapping[str, str] = {
    "inferd_drift_ks": "Distance of a feature's distribution from the reference's, from 0 to 1",
    "inferd_drift_psi": "Population stability index of a feature",
    "inferd_drift_p_value": "How probable the last window is without drift, for all its tests",
    "inferd_drift_alarm": "1 while the last window of a feature drifted",
}
"""Names and texts of gauges of each feature of a model version, which the whole server has."""
DRIFT_COUNTERS: Mapping[str, str] = {
    "inferd_drift_windows_total": "Windows that were compared with the reference",
    "inferd_drift_alarms_total": "Windows with an alarm among them",
}
"""Likewise, of counters of each model version."""
DEVICE_GAUGES: Mapping[str, str] = {
    "inferd_device_up": "1 while the worker process of a GPU has its models",
    "inferd_device_models": "Model versions that serve on a GPU",
    "inferd_device_memory_used_bytes": "Memory in use on a GPU or MIG slice, by whoever",
    "inferd_device_memory_bytes": "Memory of a GPU or MIG slice",
}
"""Names and texts of gauges of each GPU; the first two where several have a worker each."""
DEVICE_COUNTERS: Mapping[str, str] = {
    "inferd_device_run_seconds_total": "Time that engines ran on a GPU, of all its models",
    "inferd_device_rows_total": "Rows that ran on a GPU",
    "inferd_device_restarts_total": "Worker processes of a GPU that were started again",
}
"""Likewise, of counters."""
EARLIEST: Mapping[str, str] = {
    "inferd_tls_certificate_expiry_timestamp_seconds": "When the TLS certificate in use ends",
}
"""Names and texts of gauges of which the least counts, of several processes."""


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What /metrics says; can be sent to another process."""

    series: Mapping[tuple[str, int], SeriesSnapshot] = field(default_factory=dict)
    """By model and version."""
    refused: Mapping[tuple[str, str, str], Count] = field(default_factory=dict)
    """Requests that were never admitted, by model, version ("" twice if unknown) and code."""
    engines: frozenset[tuple[str, str, str]] = frozenset()
    """Model, version and name of every engine that serves."""
    ready: bool | None = None
    """None: this process does not say."""
    info: Mapping[str, str] = field(default_factory=dict)
    """Version and transport."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    """Values of GAUGES that this process has, by name."""
    plans: frozenset[tuple[str, str, str]] = frozenset()
    """Model, version and state of every plan."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Processes that were started again, by what they are."""
    trials: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """What trial inferences said, by model, version and outcome."""
    refused_calls: Mapping[str, int] = field(default_factory=dict)
    """Calls that were refused for who called, how often, or a bound, by reason."""
    models: Mapping[tuple[str, str, int], float] = field(default_factory=dict)
    """Values of MODEL_GAUGES and MODEL_COUNTERS, by name, model and version."""
    devices: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Values of DEVICE_GAUGES and DEVICE_COUNTERS, by name and the GPU's UUID."""
    accuracy: Mapping[tuple[str, int], AccuracySnapshot] = field(default_factory=dict)
    """True labels that came, by model and version."""
    refused_feedback: Mapping[str, int] = field(default_factory=dict)
    """Prediction tokens that were refused, by reason."""
    drift: Mapping[tuple[str, int, str], DriftCounts] = field(default_factory=dict)
    """What was measured of requests, by model, version and the key of their reference."""
    drifted: Mapping[tuple[str, str, int, str], float] = field(default_factory=dict)
    """Values of DRIFT_GAUGES and DRIFT_COUNTERS, by name, model, version and feature ("": none)."""
    busy: Mapping[str, Share] = field(default_factory=dict)
    """How busy the engines are, by line, see `BusyWindow`."""


def merge(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Return the metrics of several processes as those of one server.

    Counters, histograms and requests in flight add up; an engine serves if it does in any
    process; ready are they if each that says anything is; where processes differ in what they
    are, all is told, with commas between.
    """
    series: dict[tuple[str, int], SeriesSnapshot] = {}
    refused: dict[tuple[str, str, str], Count] = {}
    snapshots = tuple(snapshots)
    states = [snapshot.ready for snapshot in snapshots if snapshot.ready is not None]
    info: dict[str, set[str]] = {}
    gauges: dict[str, float] = {}
    restarts: dict[str, int] = {}
    trials: dict[tuple[str, str, str], int] = {}
    refused_calls: dict[str, int] = {}
    models: dict[tuple[str, str, int], float] = {}
    devices: dict[tuple[str, str], float] = {}
    accuracy: dict[tuple[str, int], AccuracySnapshot] = {}
    refused_feedback: dict[str, int] = {}
    drift: dict[tuple[str, int, str], DriftCounts] = {}
    drifted: dict[tuple[str, str, int, str], float] = {}
    busy: dict[str, Share] = {}
    for snapshot in snapshots:
        add_gauges(gauges, snapshot.gauges)
        add_values(restarts, snapshot.restarts)
        add_values(trials, snapshot.trials)
        add_values(refused_calls, snapshot.refused_calls)
        add_values(models, snapshot.models)
        add_values(devices, snapshot.devices)
        add_values(refused_feedback, snapshot.refused_feedback)
        for model, labels in snapshot.accuracy.items():
            accuracy[model] = add_accuracy(accuracy[model], labels) if model in accuracy else labels
        add_values(drifted, snapshot.drifted)
        add_drift(drift, snapshot.drift)
        for line, share in snapshot.busy.items():
            busy[line] = add_shares(busy[line], share) if line in busy else share
        for model, found in snapshot.series.items():
            series[model] = add_series(series[model], found) if model in series else found
        for label, count in snapshot.refused.items():
            refused[label] = add_counts(refused[label], count) if label in refused else count
        for name, text in snapshot.info.items():
            info.setdefault(name, set()).add(text)
    return MetricsSnapshot(
        series,
        refused,
        frozenset().union(*(snapshot.engines for snapshot in snapshots)),
        all(states) if states else None,
        {name: ",".join(sorted(texts)) for name, texts in info.items()},
        gauges,
        frozenset().union(*(snapshot.plans for snapshot in snapshots)),
        restarts,
        trials,
        refused_calls,
        models,
        devices,
        accuracy,
        refused_feedback,
        drift,
        drifted,
        busy,
    )


def add_gauges(to: dict[str, float], gauges: Mapping[str, float]) -> None:
    """Take in the gauges of one more process."""
    add_values(to, {name: value for name, value in gauges.items() if name not in EARLIEST})
    for name in EARLIEST.keys() & gauges.keys():
        to[name] = min(to.get(name, gauges[name]), gauges[name])


def add_values(to: dict[K, V], values: Mapping[K, V]) -> None:
    """Add numbers to those of the same name; one that is zero is there, too."""
    for name, value in values.items():
        to[name] = to[name] + value if name in to else value


def without_gauges(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """Return what a process counted, without what was true of it only while it lived."""
    series = {model: replace(found, in_flight=0) for model, found in snapshot.series.items()}
    return MetricsSnapshot(
        series,
        snapshot.refused,
        trials=snapshot.trials,
        refused_calls=snapshot.refused_calls,
        models={key: v for key, v in snapshot.models.items() if key[0] in MODEL_COUNTERS},
        devices={key: v for key, v in snapshot.devices.items() if key[0] in DEVICE_COUNTERS},
        # Labels slide out of their window by themselves.
        accuracy=snapshot.accuracy,
        refused_feedback=snapshot.refused_feedback,
        drift=snapshot.drift,
    )
