"""The verdict of a trial of rows, and when two answers count as the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

import numpy as np
from inferd.tensors import Array

LOOSE, LOOSE_HALF, NOISE = 1e-3, 1e-2, 1e-5
"""By how much an answer may differ in a batch of another size: relative, and absolute."""
DEVICE = 5e-2
"""The same on other devices, as a part of the largest value: they multiply with 10 or 7 bits."""


class Finding(Enum):
    """What a trial found out."""

    INDEPENDENT = "independent"
    MIXES = "mixes"
    RANDOM = "random"
    """Equal batches give different answers, so that nothing can be told."""
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """The result of a trial."""

    finding: Finding
    reason: str
    """A clause for people."""
    runs: int = 0
    fitting: int = 0
    """Rows of a batch that keep to the budget in bytes; 0: not known."""


class Case(NamedTuple):
    """A row among all its neighbours."""

    watched: int
    batch: int


Equal: TypeAlias = Callable[[Array, Array], bool]
"""True if two answers count as the same."""


def differing(before: Mapping[str, Array], after: Mapping[str, Array], equal: Equal) -> str:
    """Return the first output of a row that is another one now; "" if none is."""
    return next((name for name in before if not equal(before[name], after[name])), "")


def same_bits(one: Array, other: Array) -> bool:
    """True if two answers are the same, bit for bit; any NaN is like any other."""
    if one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool(np.all(one == other))
    if one.tobytes() == other.tobytes():
        return True
    if one.dtype.kind in "iub":
        return False
    return bool(np.all((one == other) | ((one != one) & (other != other))))  # noqa: PLR0124 NaN


def alike(one: Array, other: Array) -> bool:
    """True if two answers differ by rounding only, element by element; whole numbers not at all."""
    if one.shape != other.shape or one.dtype.kind in "Oiub":
        return same_bits(one, other)
    loose = LOOSE_HALF if one.dtype.itemsize == 2 else LOOSE
    one, other = one.astype(np.float64), other.astype(np.float64)
    bound = loose * np.maximum(np.abs(one), np.abs(other)) + NOISE
    both_nan = np.isnan(one) & np.isnan(other)
    return bool(np.all((np.abs(one - other) <= bound) | both_nan | (one == other)))


def alike_on_device(one: Array, other: Array) -> bool:
    """True if two answers differ by what a device rounds, whose kernels are chosen by sizes."""
    if one.shape != other.shape or one.dtype.kind in "Oiub":
        return same_bits(one, other)
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(other)
    largest = np.abs(np.concatenate([one[finite], other[finite], [0.0]])).max()
    same = (np.isnan(one) & np.isnan(other)) | (one == other)
    return bool(np.all(same | (finite & (np.abs(one - other) <= DEVICE * largest + NOISE))))


def summary(
    tried: Sequence[Case],
    skipped: Sequence[Case],
    runs: int,
    most: int,
    *,
    fewer_neighbours: bool,
) -> str:
    """Say what was tried, and what was not."""
    sizes = sorted({case.batch for case in tried})
    text = (
        f"rows kept every bit of their answers whatever shared their batch: {runs} runs, "
        f"{len({case.watched for case in tried})} rows, batches of {_listed(sizes)}"
    )
    left = sorted({case.batch for case in skipped} - set(sizes))
    untried = [f"batches of {_listed(left)}"] if left else []
    fewer = {case.watched for case in skipped} - {case.watched for case in tried}
    if fewer:
        untried.append(f"{len(fewer)} rows of other values")
    if fewer_neighbours:
        untried.append("some neighbours")
    if most > max(sizes) and not left:
        untried.append(f"batches up to {most}")
    return text + (f"; not tried: {', '.join(untried)}" if untried else "")


def _listed(sizes: Sequence[int]) -> str:
    *first, last = map(str, sizes)
    return f"{', '.join(first)} and {last}" if first else last
