"""Processor time of a small request by process and thread, in every arrangement.

    python -m benchmarks.threads [--callers 32] [--rounds 3] [--seconds 2]

Each arrangement serves the digits model alone, one after the other in each round, to callers of the
fast client on 16 connections. A thread is told by its place among those of its process, in the
order in which they began: the first is the main one. Those that take less than 1 us are added up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models

from benchmarks.callers import run_plan
from benchmarks.peers.memory import tree
from benchmarks.process import digits_request, serving

ARRANGEMENTS = {
    "inline": ("--processes", "inline"),
    "threads": ("--processes", "threads"),
    "split, 1 front": ("--processes", "split", "--fronts", "1"),
    "split, 2 fronts": ("--processes", "split", "--fronts", "2"),
    "2 replicas": ("--processes", "replicas", "--replicas", "2"),
}
CONNECTIONS, LITTLE_US = 16, 1.0
ROLES = ("front", "worker", "replica")
Thread = tuple[str, str]
"""Process and thread."""


def processor_ns(pids: Sequence[int], server: int) -> dict[Thread, int]:
    """Return the nanoseconds that each thread of these processes has had.

    Source: Documentation/scheduler/sched-stats.rst of Linux, /proc/PID/task/TID/schedstat.
    """
    found: dict[Thread, int] = {}
    for pid in pids:
        folder = Path("/proc") / str(pid)
        role = role_of((folder / "cmdline").read_text().split("\0"), pid == server)
        for place, task in enumerate(sorted(folder.glob("task/*"), key=lambda one: int(one.name))):
            # It may have ended.
            with suppress(OSError):
                name = (task / "comm").read_text().strip() if place else "main"
                found[f"{role} {pid}", f"{place} {name}"] = int(
                    (task / "schedstat").read_text().split()[0]
                )
    return found


def role_of(command: Sequence[str], first: bool) -> str:
    """Return what a process is: the supervisor names the role of those that it starts."""
    if first:
        return "server"
    return next((word for word in command if word in ROLES), "other")


def measure(arrangement: Sequence[str], plan: Plan) -> dict[Thread, float]:
    """Return the microseconds of each thread for a request, and the load generator's.

    Raises:
        RuntimeError: a request failed.
    """
    with serving(shipped_models(), arrangement) as server:
        loaded = replace(plan, address=server.url)
        run_plan(replace(loaded, duration=1.0))
        pids = tree(server.pid)
        before = processor_ns(pids, server.pid)
        samples = run_plan(loaded)
        after = processor_ns(pids, server.pid)
    count = samples.codes.total()
    used = {one: (ns - before.get(one, 0)) / 1e3 / count for one, ns in after.items()}
    return {**used, ("load generator", ""): samples.cpu / count * 1e6}


def told(used: Mapping[Thread, float]) -> dict[Thread, float]:
    """Return the threads that count, by role and number; the others of a role together."""
    found: dict[Thread, float] = defaultdict(float)
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for (process, thread), us in used.items():
        role, _, pid = process.partition(" ") if process != "load generator" else (process, "", "")
        number = numbers[role].setdefault(pid, len(numbers[role]) + 1)
        name = f"{role} {number}" if role in ROLES else role
        found[name, thread if us >= LITTLE_US or not thread else "others"] += us
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    request = digits_request().SerializeToString()
    plan = Plan("", request, options.callers, options.seconds, client="fast")
    plan = replace(plan, connections=min(CONNECTIONS, options.callers))
    rounds: dict[str, list[dict[Thread, float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for name, arrangement in ARRANGEMENTS.items():
            rounds[name].append(told(measure(arrangement, plan)))
    print("| arrangement | process | thread | us a request |\n| --- | --- | --- | ---: |")
    for name, found in rounds.items():
        for process, thread in sorted({one for each in found for one in each}):
            us = statistics.median(each.get((process, thread), 0.0) for each in found)
            print(f"| {name} | {process} | {thread} | {us:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
