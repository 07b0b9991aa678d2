"""Goodput under overload: answers within their deadline, when three times too much comes.

    make bench-goodput [FLAGS="--rounds 3 --seconds 10 --servers inferd,triton-0"]

Every round starts each server alone with ResNet-50, finds what it can do (8 callers in a loop),
and sends as much, and then three times as much, in a Poisson stream whose requests have a
deadline. Goodput are the answers within it, a second; its peak is the larger of what the
loop and the fitting stream brought. Right after the stream one more request is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_client.requests import Request, build

from benchmarks.goodput.load import Seen, arrivals, closed, opened
from benchmarks.peers import models
from benchmarks.peers.__main__ import chosen
from benchmarks.peers.contenders import CONTENDERS, Contender
from benchmarks.peers.models import RESNET50
from benchmarks.peers.running import running

CALLERS, OVERLOAD = 8, 3.0
HEADINGS = (
    "server", "peak/s", "goodput/s", "of peak", "p50", "p99", "late", "refused", "next answer"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one server in one round."""

    peak: float
    flood: Seen
    after: float
    """Seconds that the first request took after the flood."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; 0."""
    parser = argparse.ArgumentParser("benchmarks.goodput", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds")
    parser.add_argument("--servers", default="inferd,triton-0", help=f"of {','.join(CONTENDERS)}")
    options = parser.parse_args(arguments)
    servers = chosen(CONTENDERS, options.servers)
    found: dict[str, list[Figures]] = {server.title: [] for server in servers}
    with tempfile.TemporaryDirectory() as folder:
        (root,) = models.write(Path(folder), [RESNET50.name]).values()
        for number in range(options.rounds):
            for server in servers if number % 2 else servers[::-1]:
                figures = measure(server, root, options.seconds, options.deadline, number)
                found[server.title].append(figures)
                print(row(server.title, [figures]), file=sys.stderr)
    print(" | ".join(HEADINGS))
    for title, rounds in found.items():
        print(row(title, rounds))
    return 0


def measure(server: Contender, root: Path, seconds: float, deadline: float, seed: int) -> Figures:
    """Start a server and load it."""
    request = request_of()
    with running(server, RESNET50, root) as started:
        url = started.url
        asyncio.run(closed(url, request, CALLERS, 2.0, 60.0))
        loop = asyncio.run(closed(url, request, CALLERS, seconds, 60.0))
        rate = len(loop.took) / loop.seconds
        fitting = asyncio.run(opened(url, request, arrivals(rate, seconds, seed), deadline))
        moments = arrivals(OVERLOAD * rate, seconds, seed + 1000)
        flood = asyncio.run(opened(url, request, moments, deadline))
        start = time.monotonic()
        asyncio.run(closed(url, request, 1, 0.0001, 60.0))
        after = time.monotonic() - start
    return Figures(max(rate, fitting.goodput), flood, after)


def request_of() -> ModelInferRequest:
    """Return a request for one image."""
    return build(Request(RESNET50.name, {RESNET50.input: models.example(RESNET50)}))


def row(title: str, rounds: Sequence[Figures]) -> str:
    """Write the medians over rounds as a line of the table."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    floods = [figures.flood for figures in rounds]
    cells = (
        f"{median([f.peak for f in rounds]):.1f}",
        f"{median([f.flood.goodput for f in rounds]):.1f}",
        f"{median([f.flood.goodput / f.peak for f in rounds]):.2f}",
        f"{median([flood.percentile(0.5) for flood in floods]) * 1000:.0f} ms",
        f"{median([flood.percentile(0.99) for flood in floods]) * 1000:.0f} ms",
        f"{median([flood.late for flood in floods]):.1%}",
        f"{median([flood.refused / flood.sent for flood in floods]):.0%}",
        f"{median([f.after for f in rounds]) * 1000:.0f} ms",
    )
    return " | ".join((title, *cells))


if __name__ == "__main__":
    sys.exit(main())
