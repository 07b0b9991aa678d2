"""Which settings of gRPC core and the allocator pay for large messages, in one interleaved run.

    python -m benchmarks.tuning [--rounds 3] [--seconds 3] [--json FILE]

Each round loads the completion-queue transport alone, which answers a small constant, with
requests of 600 KB by the fast client of `inferd bench`: unary, 4 connections with 8 requests
outstanding on each. Once as the product sets itself up, and once with one thing changed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from inferd_client.bench.plan import Plan
from inferd_client.requests import Request, build

from benchmarks.overhead import Cost, constant, measure

CONNECTIONS, OUTSTANDING = 4, 8
# What glibc does when nobody says anything. Source: mallopt(3).
GLIBC = {
    "MALLOC_MMAP_THRESHOLD_": str(128 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 10),
    "MALLOC_TOP_PAD_": str(128 << 10),
}
LISTENER = {"GRPC_EXPERIMENTS": "event_engine_listener"}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to set the transport up."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()


VARIANTS = (
    Variant("as it is"),
    Variant("malloc as glibc has it", GLIBC),
    Variant("event-engine listener on", LISTENER),
    Variant("both", {**GLIBC, **LISTENER}),
    Variant("frames of 16 MiB", arguments=("grpc.http2.max_frame_size=16777215",)),
    Variant("windows of 16 MiB", arguments=("grpc.http2.lookahead_bytes=16777216",)),
    Variant("no bandwidth probes", arguments=("grpc.http2.bdp_probe=0",)),
    Variant("reads of 1 MiB", arguments=("grpc.experimental.tcp_min_read_chunk_size=1048576",)),
)


def compare(rounds: int, seconds: float) -> dict[str, list[Cost]]:
    """Run all rounds and return the costs by variant."""
    image = np.random.default_rng(0).random((1, 3, 224, 224)).astype(np.float32)
    request = build(Request("mean", {"image": image})).SerializeToString()
    plan = Plan("", request, CONNECTIONS * OUTSTANDING, seconds, client="fast")
    plan = replace(plan, connections=CONNECTIONS)
    found: dict[str, list[Cost]] = {variant.name: [] for variant in VARIANTS}
    for index in range(rounds):
        for variant in VARIANTS if index % 2 else VARIANTS[::-1]:
            found[variant.name].append(once(variant, plan))
    return found


def once(variant: Variant, plan: Plan) -> Cost:
    """Start a server set up in one way, warm it, and measure."""
    with constant(bytes(64), variant.environment, variant.arguments) as (url, pid):
        measure(replace(plan, address=url, duration=0.5), pid)
        return measure(replace(plan, address=url), pid)


def table(found: Mapping[str, Sequence[Cost]]) -> str:
    """Return the medians, and their ratios to the first."""
    lines = [
        "| set up | server, us/request | ratio | requests/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    medians = {
        name: (
            statistics.median(cost.server_us for cost in costs),
            statistics.median(cost.requests_per_s for cost in costs),
        )
        for name, costs in found.items()
    }
    base_cost, base_rate = medians[VARIANTS[0].name]
    for name, (cost, rate) in medians.items():
        lines.append(
            f"| {name} | {cost:.0f} | {cost / base_cost:.2f} "
            f"| {rate:,.0f} | {rate / base_rate:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    found = compare(options.rounds, options.seconds)
    if options.json:
        costs = {name: [asdict(cost) for cost in costs] for name, costs in found.items()}
        options.json.write_text(json.dumps(costs, indent=2))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
