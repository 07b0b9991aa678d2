"""This checkout beside another one: processor time and rate of a small request, interleaved.

    git worktree add /tmp/before REVISION && make -C /tmp/before install
    python -m benchmarks.revisions /tmp/before [--rounds 9] [--seconds 2] [-- FLAGS OF SERVE]

Both servers run all the time; each round loads one after the other, each first in every other
round, with the digits model, unary, 4 connections with 16 requests outstanding on each, and
then with one caller. The load generator is this checkout's for both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models

from benchmarks.callers import run_plan
from benchmarks.overhead import cpu_seconds
from benchmarks.process import Serving, digits_request, serving

CONNECTIONS, OUTSTANDING = 4, 16


@dataclass(frozen=True, slots=True)
class Figures:
    """One server's round: microseconds of processor time a request, requests/s, p50 in ms."""

    cost_us: float
    rate: float
    alone_ms: float


def figures(many: Plan, one: Plan, pid: int) -> Figures:
    """Load one server both ways.

    Raises:
        RuntimeError: a request failed.
    """
    before = cpu_seconds(pid)
    samples = run_plan(many)
    used = cpu_seconds(pid) - before
    alone = run_plan(one)
    count = samples.codes.total()
    seconds = samples.ended - samples.started
    return Figures(used / count * 1e6, count / seconds, statistics.median(alone.latencies) * 1e3)


def compare(other: Path, rounds: int, seconds: float, flags: Sequence[str]) -> list[list[Figures]]:
    """Return the figures of every round: of this checkout, then of the other."""
    with ExitStack() as stack:
        pythons = (sys.executable, str(other / ".venv/bin/python"))
        servers = [
            stack.enter_context(serving(shipped_models(), flags, python=python))
            for python in pythons
        ]
        return interleaved(servers, rounds, seconds)


def interleaved(servers: Sequence[Serving], rounds: int, seconds: float) -> list[list[Figures]]:
    """Return the figures of every round, by server of the digits model; each is first in turn."""
    request = digits_request().SerializeToString()
    many = Plan("", request, CONNECTIONS * OUTSTANDING, seconds, client="fast")
    many = replace(many, connections=CONNECTIONS)
    one = Plan("", request, 1, seconds / 2, client="fast")
    found: list[list[Figures]] = [[] for _ in servers]
    ways = range(len(servers))
    for number in range(rounds + 1):
        for way in ways if number % 2 else reversed(ways):
            server = servers[way]
            plans = (replace(plan, address=server.url) for plan in (many, one))
            seen = figures(*plans, pid=server.pid)
            if number:  # the first round warms up
                found[way].append(seen)
    return found


def table(found: Sequence[Sequence[Figures]], this: str = "this", other: str = "other") -> str:
    """Return the medians of both, and that of the ratios of each round, by figure."""
    lines = [f"| figure | {this} | {other} | ratio |", "| --- | ---: | ---: | ---: |"]
    for name in ("cost_us", "rate", "alone_ms"):
        one, two = ([getattr(figures, name) for figures in way] for way in found)
        # What slows the host for a while slows both of a round.
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        medians = f"{statistics.median(one):,.3f} | {statistics.median(two):,.3f}"
        lines.append(f"| {name} | {medians} | {ratio:.3f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("other", type=Path, help="another checkout, with its own .venv")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, for both, after --")
    options = parser.parse_intermixed_args()
    print(table(compare(options.other, options.rounds, options.seconds, options.flags)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
