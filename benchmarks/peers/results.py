"""What was measured, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

# Bare ONNX Runtime's figures are kept under this name and a size of batch.
BARE = "bare"

# What each figure is called in the table. More is better of requests/s, less of all others.
FIGURES: Mapping[str, str] = {
    "per_s": "requests/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "cpu_us": "processor time a request, us (all processes of the server)",
    "start_s": "start to READY, s",
    "VmHWM": "peak memory, MiB (sum of VmHWM)",
    "PSS": "memory after the load, MiB (PSS)",
}


class Results:
    """Figures by load (or model, of the process), figure and server: one value a round."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, dict[str, list[float]]]] = {}

    def add(self, what: str, figure: str, server: str, value: float) -> None:
        """Keep a value."""
        servers = self._found.setdefault(what, {}).setdefault(figure, {})
        servers.setdefault(server, []).append(value)

    def as_json(self) -> Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]:
        """Return all values."""
        return self._found

    def table(self, titles: Mapping[str, str]) -> str:
        """Return Markdown: a column for each server, and the first server's ratio to it.

        Args:
            titles: what the servers are called, by name; the first is compared with the others.
        """
        reference = next(iter(titles))
        lines = [_row(["load", "figure", *titles.values(), "bare ONNX Runtime"])]
        lines.append(_row(["---", "---", *(["---:"] * (len(titles) + 1))]))
        for what, figures in self._found.items():
            for figure, servers in figures.items():
                found = medians(servers)
                ours = found.get(reference)
                cells = [_cell(found.get(name), ours) for name in [*titles, BARE]]
                lines.append(_row([what, FIGURES[figure], *cells]))
        return "\n".join(lines)


def medians(servers: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each server, and of bare ONNX Runtime the best size of batch."""
    found = {name: statistics.median(values) for name, values in servers.items()}
    bare = [value for name, value in found.items() if name.startswith(BARE)]
    return found | ({BARE: max(bare)} if bare else {})


def _cell(theirs: float | None, ours: float | None) -> str:
    if theirs is None:
        return "-"
    if ours is None:
        return f"({number(theirs)})"
    return f"{ours / theirs:.2f} ({number(theirs)})"


def number(value: float) -> str:
    """Return three significant digits, and all digits of what is larger."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
