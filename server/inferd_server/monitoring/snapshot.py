"""All metrics of a process at one moment, as plain data, and those of several as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import add
from typing import TypeVar

from inferd_server.monitoring.accuracy import AccuracySnapshot, add_accuracy
from inferd_server.monitoring.busy import Share, add_shares
from inferd_server.monitoring.drift.windows import DriftCounts, add_drift
from inferd_server.monitoring.recent import LogLine, latest_lines
from inferd_server.monitoring.series import Count, SeriesSnapshot, add_counts, add_series

K = TypeVar("K")
V = TypeVar("V")
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
COUNTERS: Mapping[str, str] = {
    "inferd_traces_sent_total": "Requests whose spans the receiver of traces took",
    "inferd_traces_dropped_total": "Traced requests whose spans are lost",
}
"""Likewise, of counters."""
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
    """What /metrics and the page say; can be sent to another process."""

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
    """Values of GAUGES and COUNTERS that this process has, by name."""
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
    lines: tuple[LogLine, ...] = ()
    """The last warnings and errors of the log, the oldest first."""


def merge(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Return the metrics of several processes as those of one server.

    Counters, histograms and requests in flight add up; an engine serves if it does in any
    process; ready are they if each that says anything is; where processes differ in what they
    are, all is told, with commas between.
    """
    snapshots = tuple(snapshots)
    states = [snapshot.ready for snapshot in snapshots if snapshot.ready is not None]
    info: dict[str, set[str]] = {}
    gauges: dict[str, float] = {}
    drift: dict[tuple[str, int, str], DriftCounts] = {}
    for snapshot in snapshots:
        add_gauges(gauges, snapshot.gauges)
        add_drift(drift, snapshot.drift)
        for name, text in snapshot.info.items():
            info.setdefault(name, set()).add(text)
    return MetricsSnapshot(
        series=added((s.series for s in snapshots), add_series),
        refused=added((s.refused for s in snapshots), add_counts),
        engines=frozenset().union(*(s.engines for s in snapshots)),
        ready=all(states) if states else None,
        info={name: ",".join(sorted(texts)) for name, texts in info.items()},
        gauges=gauges,
        plans=frozenset().union(*(s.plans for s in snapshots)),
        restarts=added((s.restarts for s in snapshots), add),
        trials=added((s.trials for s in snapshots), add),
        refused_calls=added((s.refused_calls for s in snapshots), add),
        models=added((s.models for s in snapshots), add),
        devices=added((s.devices for s in snapshots), add),
        accuracy=added((s.accuracy for s in snapshots), add_accuracy),
        refused_feedback=added((s.refused_feedback for s in snapshots), add),
        drift=drift,
        drifted=added((s.drifted for s in snapshots), add),
        busy=added((s.busy for s in snapshots), add_shares),
        lines=latest_lines(chain.from_iterable(s.lines for s in snapshots)),
    )


def added(maps: Iterable[Mapping[K, V]], add_two: Callable[[V, V], V]) -> dict[K, V]:
    """Return what several have under a name as one; what is zero is there, too."""
    total: dict[K, V] = {}
    for values in maps:
        for name, value in values.items():
            total[name] = add_two(total[name], value) if name in total else value
    return total


def add_gauges(to: dict[str, float], gauges: Mapping[str, float]) -> None:
    """Take in the gauges of one more process."""
    counted = {name: value for name, value in gauges.items() if name not in EARLIEST}
    to.update(added((to, counted), add))
    for name in EARLIEST.keys() & gauges.keys():
        to[name] = min(to.get(name, gauges[name]), gauges[name])


def without_gauges(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """Return what a process counted, without what was true of it only while it lived."""
    series = {model: replace(found, in_flight=0) for model, found in snapshot.series.items()}
    return MetricsSnapshot(
        series,
        snapshot.refused,
        gauges={key: v for key, v in snapshot.gauges.items() if key in COUNTERS},
        trials=snapshot.trials,
        refused_calls=snapshot.refused_calls,
        models={key: v for key, v in snapshot.models.items() if key[0] in MODEL_COUNTERS},
        devices={key: v for key, v in snapshot.devices.items() if key[0] in DEVICE_COUNTERS},
        # Labels slide out of their window by themselves.
        accuracy=snapshot.accuracy,
        refused_feedback=snapshot.refused_feedback,
        drift=snapshot.drift,
        lines=snapshot.lines,
    )
