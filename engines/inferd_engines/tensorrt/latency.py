"""How long the runs of a plan take, bucket by bucket, from arrays on the host to arrays there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from inferd_engines.engine import Array, Engine

WARM_UP, RUNS = 2, 9
"""Runs that are not timed, and runs that are."""
LATENCY = "latency"
"""The entry of a report."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of runs with as many rows, alone on the device."""

    rows: int
    """1 for a plan without a batch dimension."""
    best: float
    """Seconds."""
    median: float
    """Seconds."""


def measure(
    engine: Engine, batches: Sequence[Mapping[str, Array]], clock: Callable[[], float]
) -> list[Latency]:
    """Time runs of each batch.

    Args:
        engine: that runs them.
        batches: inputs, one for each bucket.
        clock: monotonic seconds.

    Raises:
        EngineError: a run failed.
    """
    return [timed(engine, batch, clock) for batch in batches]


def timed(engine: Engine, batch: Mapping[str, Array], clock: Callable[[], float]) -> Latency:
    """Time runs of one batch.

    Raises:
        EngineError: a run failed.
    """
    rows = rows_of(engine, batch)
    for _ in range(WARM_UP):
        engine.run(batch, {}, rows)
    seconds = []
    for _ in range(RUNS):
        start = clock()
        engine.run(batch, {}, rows)
        seconds.append(clock() - start)
    return Latency(rows, min(seconds), median(seconds))


def rows_of(engine: Engine, batch: Mapping[str, Array]) -> int:
    """Return the rows of a batch; 1 for a plan without a batch dimension."""
    return len(next(iter(batch.values()))) if engine.buckets else 1


def entry_of(latencies: Sequence[Latency]) -> dict[str, Any]:
    """Return latencies as a report keeps them."""
    return {LATENCY: [asdict(latency) for latency in latencies]}


def latencies_in(report: Mapping[str, Any]) -> tuple[Latency, ...]:
    """Return the latencies of a report; none where it has none, as those of older versions."""
    try:
        return tuple(Latency(**found) for found in report.get(LATENCY, ()))
    except TypeError:
        return ()
