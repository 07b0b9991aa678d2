"""How far the answers of one model are from those of another, and how fast each is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from inferd_engines.conversion.errors import Differs
from inferd_engines.conversion.rows import Rows
from inferd_engines.engine import Array, Engine

ROUNDS = 9
"""Runs of each model at each size, in turn."""
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Distance:
    """How far one output is from another's."""

    worst: float
    """The largest absolute difference of two elements."""
    relative: float
    """Norm of the difference over the norm of the original."""
    agreement: float | None
    """Share of rows whose largest element is in the same place; None where rows have no classes."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Median milliseconds of a run of `rows` rows, of each model in the same minute."""

    rows: int
    before_ms: float
    after_ms: float

    @property
    def ratio(self) -> float:
        """How many times as fast the second is."""
        return self.before_ms / self.after_ms


def distances(before: Mapping[str, Array], after: Mapping[str, Array]) -> dict[str, Distance]:
    """Compare the answers of two models, output by output.

    Raises:
        Differs: the outputs have other names or shapes.
    """
    if set(before) != set(after):
        raise Differs(f"the outputs are {sorted(before)} and {sorted(after)}")
    for name, array in before.items():
        if array.shape != after[name].shape:
            shapes = f"{list(array.shape)} and {list(after[name].shape)}"
            raise Differs(f"the shapes of the output {name!r} are {shapes}")
    return {name: distance(array, after[name]) for name, array in before.items()}


def distance(before: Array, after: Array) -> Distance:
    """Compare two arrays of one shape; NaN in one alone is as far away as can be."""
    if not np.issubdtype(before.dtype, np.number):
        return Distance(float(np.any(before != after)), float(np.mean(before != after)), None)
    one, other = before.astype(np.float64), after.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    gap = np.abs(np.subtract(one, other, where=~same, out=np.zeros_like(one)))
    gap[np.isnan(gap)] = np.inf
    norm = max(float(np.linalg.norm(one[np.isfinite(one)])), TINY)
    return Distance(float(gap.max(initial=0)), float(np.linalg.norm(gap)) / norm, agree(one, other))


def agree(before: Array, after: Array) -> float | None:
    """Return the share of rows [rows, classes] with the same class; None for other shapes."""
    if before.ndim != 2 or before.shape[1] < 2:
        return None
    return float(np.mean(before.argmax(axis=1) == after.argmax(axis=1)))


def speeds(
    before: Engine,
    after: Engine,
    rows: Rows,
    sizes: tuple[int, ...],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Speed]:
    """Measure two models in turn on the first rows, at the sizes that there are rows for."""
    found = []
    for size in sizes:
        if size > len(rows):
            continue
        inputs = {name: array[:size] for name, array in rows.inputs.items()}
        taken: tuple[list[float], list[float]] = ([], [])
        for engine in (before, after):
            engine.run(inputs, {}, size)
        for _ in range(ROUNDS):
            for engine, times in zip((before, after), taken, strict=True):
                started = clock()
                engine.run(inputs, {}, size)
                times.append(clock() - started)
        medians = [statistics.median(times) * 1e3 for times in taken]
        found.append(Speed(size, *medians))
    return found
