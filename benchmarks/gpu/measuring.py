"""Every way to run every bucket of a plan, in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import numpy as np
from inferd_engines.tensorrt.engine import TensorRTEngine

from benchmarks.gpu.bare import BarePlan, Loop, capture_run
from benchmarks.gpu.phases import phases
from benchmarks.gpu.results import BARE, WAYS, Bucket
from benchmarks.gpu.subject import Subject

Run = TypeVar("Run")
Rate = Callable[[int], float]
"""Runs per second with so many under way."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 0.3
    """Of each measurement of a rate."""
    repeats: int = 50
    """Runs that phases are the median of."""


def rate(
    begin: Callable[[], Run],
    finish: Callable[[Run], object],
    seconds: float,
    clock: Callable[[], float],
    under_way: int,
) -> float:
    """Return runs per second of a loop that always has so many begun.

    Args:
        begin: starts a run.
        finish: waits for it.
        seconds: that the loop takes.
        clock: monotonic, in seconds.
        under_way: runs that are begun and not finished.
    """
    runs = deque(begin() for _ in range(under_way))
    count, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        finish(runs.popleft())
        runs.append(begin())
        count += 1
    for run in runs:
        finish(run)
    return count / elapsed


def measure(
    subject: Subject, effort: Effort, clock: Callable[[], float], told: Callable[[str], None]
) -> list[Bucket]:
    """Return what was measured of every bucket. With the device's context current.

    Args:
        subject: a plan with batches.
        effort: how much.
        clock: monotonic, in seconds.
        told: of what is measured next.

    Raises:
        TensorRTError: the plan does not load or run.
    """
    found = []
    with ExitStack() as stack:
        plan = BarePlan(subject)
        engines = {}
        for name, graphs in (("plain", False), ("graphs", True)):
            engines[name] = subject.engine(graphs=graphs)
            stack.callback(engines[name].close)
        for rows in subject.buckets:
            told(f"{subject.name}, {rows} rows")
            with loops(subject, plan, rows) as two:
                found.append(measure_bucket(subject, rows, two, engines, effort, clock))
    return found


def measure_bucket(
    subject: Subject,
    rows: int,
    two: Sequence[Loop],
    engines: Mapping[str, TensorRTEngine],
    effort: Effort,
    clock: Callable[[], float],
) -> Bucket:
    """Return what was measured of one bucket."""
    made = Bucket(subject.name, rows)
    rates: dict[str, Rate] = {BARE: partial(bare_rate, two, effort.seconds, clock)}
    for name, engine in engines.items():
        rates[name] = partial(engine_rate, subject, engine, rows, effort.seconds, clock)
    for _ in range(effort.rounds):
        for way in WAYS:
            made.add(way, rows * rates[way.runner](way.under_way))
    split(made, subject, two[0], effort.repeats)
    return made


def bare_rate(
    two: Sequence[Loop], seconds: float, clock: Callable[[], float], under_way: int
) -> float:
    """Return the rate of as many bare loops as runs are under way."""
    turns = cycle(two[:under_way])
    return rate(lambda: next(turns).begin(), Loop.finish, seconds, clock, under_way)


def engine_rate(
    subject: Subject,
    engine: TensorRTEngine,
    rows: int,
    seconds: float,
    clock: Callable[[], float],
    under_way: int,
) -> float:
    """Return the rate of an engine that writes its outputs into buffers, as it does in a server."""
    inputs = subject.inputs(rows, np.random.default_rng(0))
    outputs = {name: np.empty_like(array) for name, array in engine.run(inputs, {}, rows).items()}

    def finish(run: Any) -> None:
        engine.finish(run, outputs)

    return rate(lambda: engine.begin(inputs, rows), finish, seconds, clock, under_way)


def split(made: Bucket, subject: Subject, loop: Loop, repeats: int) -> None:
    """Measure the phases of a run, plain and, where it can be captured, as a graph."""
    cuda, libcuda = subject.gpu.device.cuda, subject.gpu.device.libcuda
    made.plain = phases(loop, loop.execute, cuda, repeats)
    captured = capture_run(loop, subject)
    if captured is None:
        return
    launch = partial(libcuda.launch, captured, int(loop.stream.handle))
    made.graph = phases(loop, launch, cuda, repeats)
    libcuda.destroy_executable(captured)


@contextmanager
def loops(subject: Subject, plan: BarePlan, rows: int) -> Iterator[Sequence[Loop]]:
    """Give two bare loops of one bucket."""
    with ExitStack() as stack:
        two = []
        for _ in range(2):
            two.append(Loop(subject, plan, rows))
            stack.callback(two[-1].close)
        yield two
