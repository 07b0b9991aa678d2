"""What everything above the transport costs: processor time per request, in one interleaved run.

    python -m benchmarks.overhead [--rounds 5] [--seconds 3] [--json FILE]

Each round loads, one after the other, a server that is the completion-queue transport alone
and answers digits-sized constants, and the real server with the digits model, by the fast
client of `inferd bench`: unary, 4 connections with 16 requests outstanding on each. The
figures are utime + stime of the server's process and its descendants per request.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import grpc
from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models

from benchmarks.callers import run_plan
from benchmarks.process import digits_request, serving

CONNECTIONS, OUTSTANDING = 4, 16
WAYS = ("transport alone", "server with digits")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one measurement: microseconds of processor time per request, and requests a second."""

    server_us: float
    client_us: float
    requests_per_s: float


@contextmanager
def constant(
    answer: bytes, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Run the transport alone; gives its address and process id.

    Args:
        answer: to every request.
        environment: what to set or change there.
        arguments: channel arguments as NAME=NUMBER.
    """
    command = [sys.executable, "-m", "benchmarks.constant", answer.hex(), *arguments]
    changed = {**os.environ, **(environment or {})}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=changed)
    try:
        assert server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}", server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its descendants have used (proc(5))."""
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        process = int(stat.parent.name)
        parents[process] = int(fields[1])
        ticks[process] = int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[member] for member in family) / os.sysconf("SC_CLK_TCK")


def measure(plan: Plan, pid: int) -> Cost:
    """Load a server and return what it cost.

    Raises:
        RuntimeError: a request failed.
    """
    before = cpu_seconds(pid)
    samples = run_plan(plan)
    used = cpu_seconds(pid) - before
    count = samples.codes.total()
    seconds = samples.ended - samples.started
    return Cost(used / count * 1e6, samples.cpu / count * 1e6, count / seconds)


def compare(rounds: int, seconds: float) -> dict[str, list[Cost]]:
    """Run all rounds, each way first in every other one, and return the costs by way."""
    request = digits_request().SerializeToString()
    plan = Plan("", request, CONNECTIONS * OUTSTANDING, seconds, client="fast")
    plan = replace(plan, connections=CONNECTIONS)
    with serving(shipped_models()) as real, constant(ask(real.url, request)) as (url, pid):
        servers = dict(zip(WAYS, ((url, pid), (real.url, real.pid)), strict=True))
        found: dict[str, list[Cost]] = {way: [] for way in WAYS}
        for address, process in servers.values():
            measure(replace(plan, address=address, duration=0.5), process)
        for index in range(rounds):
            for way in WAYS if index % 2 else WAYS[::-1]:
                address, process = servers[way]
                found[way].append(measure(replace(plan, address=address), process))
    return found


def ask(url: str, request: bytes) -> bytes:
    """Return the server's answer to one request, serialised."""
    with grpc.insecure_channel(url) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer: bytes = method(request, timeout=10)
        return answer


def table(found: dict[str, list[Cost]]) -> str:
    """Return the medians and the ratio of the server's cost."""
    lines = [
        "| way | server, us/request | client, us/request | requests/s |",
        "| --- | ---: | ---: | ---: |",
    ]
    server = {}
    for way, costs in found.items():
        server[way] = statistics.median(cost.server_us for cost in costs)
        client = statistics.median(cost.client_us for cost in costs)
        rate = statistics.median(cost.requests_per_s for cost in costs)
        lines.append(f"| {way} | {server[way]:.1f} | {client:.1f} | {rate:,.0f} |")
    alone, whole = (server[way] for way in WAYS)
    return "\n".join([*lines, "", f"ratio of the server's medians: {whole / alone:.2f}"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    found = compare(options.rounds, options.seconds)
    if options.json:
        costs = {way: [asdict(cost) for cost in costs] for way, costs in found.items()}
        options.json.write_text(json.dumps(costs, indent=2))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
