"""The share of requests that is answered in time, beside an ideal scheduler that knows all costs.

    python -m benchmarks.scheduling [--count 20000]
    python -m benchmarks.scheduling --served rows --arrangement split

Every line is a load and a deadline in runs of one row; the figures are the percent in time:
without admission, ideal at dispatch, ideal and on arrival, and the scheduler's own, in one process
and with a front of its own; then the percent of late ones among those that it served.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.scheduling import served
from benchmarks.scheduling.loads import Cell, as_served, cells, uneven
from benchmarks.scheduling.oracle import Outcome, ideal
from benchmarks.scheduling.simulation import Simulation, bounds_of

HEADINGS = ("engine", "load, deadline", "none", "dispatch", "arrival", "own", "split", "late")


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, and print the table; 0."""
    parser = argparse.ArgumentParser("benchmarks.scheduling", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=20_000, help="requests of each cell")
    parser.add_argument("--served", choices=served.MODELS, help="a real model instead")
    arrangements = served.ARRANGEMENTS
    parser.add_argument("--arrangement", choices=arrangements, default="threads", help="with it")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load on it")
    options = parser.parse_args(arguments)
    if options.served:
        head(served.HEADINGS)
        for line in served.served(options.served, options.arrangement, options.seconds):
            print(line, flush=True)
        return 0
    head(HEADINGS)
    for cell in (*cells(), *as_served(), *uneven()):
        print(row(cell, options.count), flush=True)
    return 0


def head(headings: Sequence[str]) -> None:
    """Print the first two lines of a table."""
    print("| " + " | ".join(headings) + " |")
    print("| " + " | ".join("---" for _ in headings) + " |")


def row(cell: Cell, count: int) -> str:
    """Simulate a cell, and write it as a line of the table."""
    arrivals = cell.arrivals(count)
    goodputs = [ideal(cell, arrivals, policy) for policy in ("none", "dispatch", "arrival")]
    own, split = simulated(cell, count), simulated(cell, count, split=True)
    shares = [f"{outcome.goodput:.0%}"[:-1] for outcome in (*goodputs, own, split)]
    late = f"{own.lateness * 100:.1f} / {split.lateness * 100:.1f}"
    return "| " + " | ".join((cell.engine.title, cell.title, *shares, late)) + " |"


def simulated(cell: Cell, count: int, *, split: bool = False) -> Outcome:
    """Serve a cell's requests with the scheduler's own code."""
    simulation = Simulation(bounds_of(cell.engine.most), cell.takes(), split=split)
    return simulation.serve(cell.arrivals(count))


if __name__ == "__main__":
    sys.exit(main())
