"""Replicas beside one inline server: requests a second and processor time, interleaved.

    python -m benchmarks.replicas [--counts 2] [--rounds 5] [--seconds 2] [-- FLAGS OF SERVE]

All servers run all the time; each round loads one after the other with the digits model by the
fast client, unary, 4 requests outstanding on each of 16 connections for every replica of the
largest server, because the kernel spreads connections and not requests. On as many cores as there
are, the load generator included: `taskset` takes some away.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models

from benchmarks.callers import run_plan
from benchmarks.overhead import Cost, cpu_seconds
from benchmarks.process import Serving, digits_request, serving

CONNECTIONS, OUTSTANDING = 16, 4
INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: the plan, and by how many processes."""

    plan: Plan
    processes: int


def load_of(replicas: int, seconds: float) -> Load:
    """Return the load that fills so many replicas: one process that sends for each four."""
    request = digits_request().SerializeToString()
    processes = max(1, -(-replicas // 4))
    # `connections` counts for each process that sends.
    connections = CONNECTIONS * replicas // processes
    outstanding = OUTSTANDING * connections * processes
    plan = Plan("", request, outstanding, seconds, client="fast", connections=connections)
    return Load(plan, processes)


def measure(load: Load, server: Serving) -> Cost:
    """Load one server.

    Raises:
        RuntimeError: a request failed.
    """
    before = cpu_seconds(server.pid)
    samples = run_plan(replace(load.plan, address=server.url), load.processes)
    used = cpu_seconds(server.pid) - before
    count = samples.codes.total()
    seconds = samples.ended - samples.started
    return Cost(used / count * 1e6, samples.cpu / count * 1e6, count / seconds)


def compare(
    counts: Sequence[int], rounds: int, seconds: float, flags: Sequence[str]
) -> dict[str, list[Cost]]:
    """Return the figures of every round, by server; every other round goes backwards."""
    ways = {INLINE: ("--processes", "inline")} | {
        f"{count} replicas": ("--processes", "replicas", "--replicas", str(count))
        for count in counts
    }
    load = load_of(max(counts), seconds)
    found: dict[str, list[Cost]] = {way: [] for way in ways}
    with ExitStack() as stack:
        servers = {
            way: stack.enter_context(serving(shipped_models(), (*arrangement, *flags)))
            for way, arrangement in ways.items()
        }
        for number in range(rounds + 1):
            for way in list(ways) if number % 2 else list(ways)[::-1]:
                seen = measure(load, servers[way])
                if number:  # the first round warms up
                    found[way].append(seen)
    return found


def table(found: Mapping[str, Sequence[Cost]]) -> str:
    """Return the medians of every server, and the ratio of its rate to the inline server's."""
    lines = [
        "| server | requests/s | to inline | server, us/request | client, us/request |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    one = statistics.median(cost.requests_per_s for cost in found[INLINE])
    for way, costs in found.items():
        rate = statistics.median(cost.requests_per_s for cost in costs)
        server = statistics.median(cost.server_us for cost in costs)
        client = statistics.median(cost.client_us for cost in costs)
        lines.append(f"| {way} | {rate:,.0f} | {rate / one:.2f} | {server:.1f} | {client:.1f} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2], help="of replicas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, for all, after --")
    options = parser.parse_args()
    print(table(compare(options.counts, options.rounds, options.seconds, options.flags)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
