"""What the page shows, as plain data that JSON can hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, TypeAlias

from inferd_server.monitoring.accuracy import report
from inferd_server.monitoring.alerts.watch import ToldAlert
from inferd_server.monitoring.busy import ratio
from inferd_server.monitoring.phases import PHASES
from inferd_server.monitoring.recent import LogLine
from inferd_server.monitoring.series import BATCH, REQUEST, SECONDS, SeriesSnapshot
from inferd_server.monitoring.snapshot import MetricsSnapshot

Json: TypeAlias = Any
FEATURE = {"ks": "inferd_drift_ks", "psi": "inferd_drift_psi", "alarm": "inferd_drift_alarm"}


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model version, and why it is as it is."""

    name: str
    version: int
    state: str
    reason: str = ""
    engine: str = ""
    engine_reason: str = ""
    plan_state: str = ""
    batch_reason: str = ""


def numbers(now: MetricsSnapshot, wall: float) -> Json:
    """Return what /metrics tells, too, as far as the page shows it.

    Args:
        now: of the whole server.
        wall: seconds since the epoch.
    """
    refused: dict[tuple[str, str], dict[str, int]] = {}
    for (model, version, code), count in now.refused.items():
        refused.setdefault((model, version), {})[code] = count.value
    unknown = refused.pop(("", ""), {})
    names = {(name, str(version)) for name, version in now.series} | set(refused)
    return {
        "wall": wall,
        "ready": bool(now.ready),
        "info": dict(now.info),
        "busy": ratio(now.busy),
        "phases": list(PHASES),
        "bounds": list(SECONDS),
        "unknown": unknown,
        "series": [
            {
                "name": name,
                "version": version,
                "refused": refused.get((name, version), {}),
                "waiting": now.models.get(("inferd_waiting_requests", name, int(version)), 0),
                **counted(now.series.get((name, int(version)))),
            }
            for name, version in sorted(names)
        ],
        "accuracy": accuracies(now, wall),
        "drift": features(now),
    }


def counted(series: SeriesSnapshot | None) -> Json:
    """Return the counters of one model version; nothing where no request of it was admitted."""
    if series is None:
        return {}
    batches = series.histograms[BATCH]
    return {
        "codes": {code: count.value for code, count in series.codes.items()},
        "phases": list(series.phases),
        "latency": list(series.histograms[REQUEST].counts),
        "batches": sum(batches.counts),
        "rows": batches.total,
    }


def accuracies(now: MetricsSnapshot, wall: float) -> Json:
    """Return the accuracy of every model version that labels came for."""
    reports = ((model, report(labels, wall)) for model, labels in sorted(now.accuracy.items()))
    return [
        {"name": name, "version": str(version), **told.accuracy._asdict()}
        for (name, version), told in reports
        if told is not None
    ]


def features(now: MetricsSnapshot) -> Json:
    """Return how far the features of model versions are from their references."""
    found: dict[tuple[str, int, str], dict[str, float]] = {}
    keys = {metric: key for key, metric in FEATURE.items()}
    for (metric, model, version, feature), value in now.drifted.items():
        # JSON has no other numbers.
        if feature and metric in keys and isfinite(value):
            found.setdefault((model, version, feature), {})[keys[metric]] = value
    return [
        {"name": name, "version": str(version), "feature": feature, **values}
        for (name, version, feature), values in sorted(found.items())
    ]


def served(engines: Iterable[tuple[str, str, str]], plans: Iterable[tuple[str, str, str]]) -> Json:
    """Return the models as /metrics has them, without reasons."""
    states = {(name, version): state for name, version, state in plans}
    return [
        {"name": name, "version": version, "state": "READY", "engine": engine,
         "plan_state": states.get((name, version), "")}
        for name, version, engine in sorted(engines)
    ]  # fmt: skip


def reasons(
    models: Sequence[ShownModel], alerts: Sequence[ToldAlert] | None, lines: Sequence[LogLine]
) -> Mapping[str, Json]:
    """Return what /metrics does not tell.

    Args:
        models: all of them, with reasons.
        alerts: the last ones; None where nobody looks for any.
        lines: of the log.
    """
    return {
        "models": [{**asdict(one), "version": str(one.version)} for one in models],
        "alerts": None if alerts is None else [asdict(one) for one in alerts],
        "lines": [asdict(one) for one in lines],
    }
