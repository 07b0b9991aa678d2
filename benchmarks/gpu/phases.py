"""Where the time of a run goes, by CUDA events: the GPU's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.bare import Loop


@dataclass(frozen=True, slots=True)
class Phases:
    """Milliseconds between events on a run's stream."""

    copy_in: float
    compute: float
    copy_out: float


def phases(loop: Loop, execute: Callable[[], None], cuda: Any, repeats: int) -> Phases:
    """Return the medians of several runs, one after the other.

    Args:
        loop: whose copies are made.
        execute: enqueues the run on the loop's stream, plainly or as a graph.
        cuda: the module pycuda.driver.
        repeats: runs that count, after one that does not.
    """
    runs = [_one(loop, execute, cuda) for _ in range(repeats + 1)][1:]
    return Phases(
        statistics.median(run.copy_in for run in runs),
        statistics.median(run.compute for run in runs),
        statistics.median(run.copy_out for run in runs),
    )


def _one(loop: Loop, execute: Callable[[], None], cuda: Any) -> Phases:
    marks = [cuda.Event(cuda.event_flags.DEFAULT) for _ in range(4)]
    marks[0].record(loop.stream)
    for mark, step in zip(marks[1:], (loop.copy_in, execute, loop.copy_out), strict=True):
        step()
        mark.record(loop.stream)
    marks[-1].synchronize()
    return Phases(*(float(marks[index].time_till(marks[index + 1])) for index in range(3)))
