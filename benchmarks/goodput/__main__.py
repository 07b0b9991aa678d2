"""Goodput under overload: answers within their deadline, when three times too much comes.

    make bench-goodput [FLAGS="--rounds 3 --turns 4 --seconds 5 --servers inferd,triton-0"]

Every round starts each server alone with ResNet-50. In turns it is asked by 8 callers in a loop,
and by a Poisson stream of three times what they got, whose requests have a deadline; so a machine
that changes changes both. Peak are the loop's answers a second; goodput are the stream's answers
in time a second, between the first deadline and the last arrival: what is answered after the stream
is not counted. Right after each stream one more request is timed.
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
    goodput: float
    flood: Seen
    after: float
    """Seconds that the first request took after a flood, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; 0."""
    parser = argparse.ArgumentParser("benchmarks.goodput", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=4, help="of loop and stream, in a round")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load in each turn")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds")
    parser.add_argument("--servers", default="inferd,triton-0", help=f"of {','.join(CONTENDERS)}")
    options = parser.parse_args(arguments)
    servers = chosen(CONTENDERS, options.servers)
    found: dict[str, list[Figures]] = {server.title: [] for server in servers}
    with tempfile.TemporaryDirectory() as folder:
        (root,) = models.write(Path(folder), [RESNET50.name]).values()
        for number in range(options.rounds):
            for server in servers if number % 2 else servers[::-1]:
                seeds = range(number * options.turns, (number + 1) * options.turns)
                figures = measure(server, root, options.seconds, options.deadline, seeds)
                found[server.title].append(figures)
                print(row(server.title, [figures]), file=sys.stderr)
    print(" | ".join(HEADINGS))
    for title, rounds in found.items():
        print(row(title, rounds))
    return 0


def measure(
    server: Contender, root: Path, seconds: float, deadline: float, seeds: Sequence[int]
) -> Figures:
    """Start a server and load it, in a turn for each seed."""
    request = request_of()
    with running(server, RESNET50, root) as started:
        url = started.url
        asyncio.run(closed(url, request, CALLERS, 2.0, 60.0))
        answered, in_time, flood, after = 0, 0, Seen(deadline), 0.0
        for seed in seeds:
            loop = asyncio.run(closed(url, request, CALLERS, seconds, 60.0))
            count = loop.between(0.0, seconds)
            answered += count
            moments = arrivals(OVERLOAD * count / seconds, seconds, seed)
            stream = asyncio.run(opened(url, request, moments, deadline))
            in_time += stream.between(deadline, seconds)
            flood.add(stream)
            start = time.monotonic()
            asyncio.run(closed(url, request, 1, 0.0001, 60.0))
            after = max(after, time.monotonic() - start)
    peak = answered / (len(seeds) * seconds)
    goodput = in_time / (len(seeds) * (seconds - deadline))
    return Figures(peak, goodput, flood, after)


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
        f"{median([f.goodput for f in rounds]):.1f}",
        f"{median([f.goodput / f.peak for f in rounds]):.2f}",
        f"{median([flood.percentile(0.5) for flood in floods]) * 1000:.0f} ms",
        f"{median([flood.percentile(0.99) for flood in floods]) * 1000:.0f} ms",
        f"{median([flood.late for flood in floods]):.1%}",
        f"{median([flood.refused / flood.sent for flood in floods]):.0%}",
        f"{median([f.after for f in rounds]) * 1000:.0f} ms",
    )
    return " | ".join((title, *cells))


if __name__ == "__main__":
    sys.exit(main())
