"""What was counted, by one process or by all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.monitoring.statistics import Snapshot


@dataclass(frozen=True, slots=True)
class Measured:
    """What a process counted so far."""

    metrics: MetricsSnapshot
    statistics: Mapping[tuple[str, int], Snapshot]
    """By name and version of the model."""
