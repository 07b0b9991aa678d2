"""The method that tells how requests differ from the references of their models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from inferd.v1 import server_pb2

from inferd_server.errors import InvalidInput
from inferd_server.models.layout import is_version
from inferd_server.monitoring.drift.judge import DriftReport
from inferd_server.monitoring.drift.verdict import KS_FLOOR, PSI_FLOOR

Json: TypeAlias = Any


class Drift:
    """Answers questions about drift; changes nothing."""

    def __init__(self, reports: Callable[[], Sequence[DriftReport]]) -> None:
        """Keep who knows.

        Args:
            reports: returns what is known of all versions; blocks where others have to be asked.
        """
        self._reports = reports

    def drift(self, request: server_pb2.DriftRequest) -> server_pb2.DriftResponse:
        """Tell of one version, of all of a model, or of everything that is watched.

        Raises:
            InvalidInput: the version is no number.
        """
        if request.version and not is_version(request.version):
            raise InvalidInput(f"version {request.version[:64]!r} is no number")
        found = [
            described(report)
            for report in self._reports()
            if request.name in {"", report.model} and request.version in {"", str(report.version)}
        ]
        return server_pb2.DriftResponse(json=json.dumps(found))


def described(report: DriftReport) -> Json:
    """Return a report as JSON has it."""
    window = report.window
    about = {
        "model": report.model,
        "version": str(report.version),
        "reference": {"source": report.source, "rows": report.reference_rows},
        "bounds": {"level": report.level, "ks": KS_FLOOR, "psi": PSI_FLOOR},
        "open_rows": report.open_rows,
        "windows": report.windows,
        "alarms": report.alarms,
        "window": None,
        "features": [],
    }
    if window is None:
        return about
    about["window"] = {
        "rows": window.rows,
        "began": window.began,
        "ended": window.ended,
        "alarm": window.alarm,
    }
    parts = zip(report.reference.features, window.features, report.counts, strict=True)
    about["features"] = [
        {
            **asdict(verdict),
            "labels": list(feature.labels),
            "edges": [edge for edge in feature.edges if math.isfinite(edge)],
            "reference": list(feature.counts),
            "window": list(counts),
        }
        for feature, verdict, counts in parts
    ]
    return about
