"""What was measured, and the tables of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu.phases import Phases

BARE = "bare"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a bucket."""

    runner: str
    """"bare", or the engine, "plain" or with "graphs"."""
    under_way: int
    """Runs that were begun at any time."""


WAYS = tuple(Way(runner, count) for count in (1, 2) for runner in (BARE, "plain", "graphs"))


@dataclass(slots=True)
class Bucket:
    """Of one bucket of one plan."""

    model: str
    rows: int
    rates: dict[Way, list[float]] = field(default_factory=dict)
    """Rows per second, one value a round."""
    plain: Phases | None = None
    graph: Phases | None = None
    """The same with the run as a graph; None where it cannot be captured."""

    def add(self, way: Way, rate: float) -> None:
        """Keep a value of one round."""
        self.rates.setdefault(way, []).append(rate)

    def as_json(self) -> Mapping[str, Any]:
        """Return every figure."""
        rates = {f"{way.runner}, {way.under_way}": found for way, found in self.rates.items()}
        return {
            "model": self.model,
            "rows": self.rows,
            "rows_per_s": rates,
            "plain_ms": None if self.plain is None else asdict(self.plain),
            "graph_ms": None if self.graph is None else asdict(self.graph),
        }


def throughput(found: Sequence[Bucket]) -> str:
    """Return Markdown: medians of rows per second, and their ratio to the bare loop.

    The ratio compares with the bare loop that has as many runs under way.
    """
    lines = [
        "| model | rows | runs under way | bare, rows/s | plain | graphs |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for bucket in found:
        for count in sorted({way.under_way for way in bucket.rates}):
            cells = [_rate(bucket, Way(runner, count)) for runner in (BARE, "plain", "graphs")]
            lines.append(_row([bucket.model, str(bucket.rows), str(count), *cells]))
    return "\n".join(lines)


def times(found: Sequence[Bucket]) -> str:
    """Return Markdown: milliseconds of one run by phase."""
    lines = [
        "| model | rows | copy in, ms | run, ms | run as a graph, ms | copy out, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for bucket in found:
        if bucket.plain is not None:
            graph = "-" if bucket.graph is None else f"{bucket.graph.compute:.3f}"
            plain = [f"{bucket.plain.copy_in:.3f}", f"{bucket.plain.compute:.3f}", graph]
            cells = [*plain, f"{bucket.plain.copy_out:.3f}"]
            lines.append(_row([bucket.model, str(bucket.rows), *cells]))
    return "\n".join(lines)


def _rate(bucket: Bucket, way: Way) -> str:
    found, bare = bucket.rates.get(way), bucket.rates.get(Way(BARE, way.under_way))
    if not found or not bare:
        return "-"
    median, reference = statistics.median(found), statistics.median(bare)
    return f"{median:,.0f}" if way.runner == BARE else f"{median / reference:.2f} ({median:,.0f})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
