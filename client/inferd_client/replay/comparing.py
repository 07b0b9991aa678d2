"""The comparison of an answer with the recorded one: in what, and by how much, it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from inferd.tensors import Array, datatype_of


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an element may be from the recorded one: atol + rtol * |recorded|."""

    rtol: float
    atol: float


EXACT = Tolerance(0.0, 0.0)
TOLERANCES: Mapping[str, Tolerance] = {
    "FP64": Tolerance(1e-7, 1e-7),
    "FP32": Tolerance(1e-4, 1e-5),
    "FP16": Tolerance(1e-2, 1e-3),
    "BF16": Tolerance(5e-2, 1e-2),
}
"""By datatype: several roundings of it. All others have none: whole numbers, classes, texts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Tolerances that somebody asked for in place of the usual ones; None: the usual one."""

    rtol: float | None = None
    atol: float | None = None

    def of(self, datatype: str) -> Tolerance:
        """Return the tolerance of a datatype."""
        usual = TOLERANCES.get(datatype)
        if usual is None:
            return EXACT
        return Tolerance(
            usual.rtol if self.rtol is None else self.rtol,
            usual.atol if self.atol is None else self.atol,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different in one output."""

    output: str
    what: str
    """In words, such as "3 of 10 elements"."""
    largest: float = 0.0
    """Distance of the element that is furthest away; infinite where there is no number for it."""
    place: tuple[int, ...] = ()
    """Index of that element."""
    recorded: str = ""
    """That element, as text."""
    answered: str = ""


def differences(
    recorded: Mapping[str, Array], answered: Mapping[str, Array], limits: Limits
) -> list[Difference]:
    """Return what is different in the outputs that were recorded."""
    found = []
    for name, wanted in recorded.items():
        difference = (
            difference_of(name, wanted, answered[name], limits)
            if name in answered
            else Difference(name, "it was not answered", np.inf)
        )
        if difference is not None:
            found.append(difference)
    return found


def difference_of(name: str, wanted: Array, got: Array, limits: Limits) -> Difference | None:
    """Return what is different in one output; None: nothing beyond its tolerance."""
    datatypes = datatype_of(wanted.dtype), datatype_of(got.dtype)
    if datatypes[0] != datatypes[1]:
        return Difference(name, f"{datatypes[0]} was recorded, {datatypes[1]} answered", np.inf)
    if wanted.shape != got.shape:
        shapes = f"shape {list(wanted.shape)} was recorded, {list(got.shape)} answered"
        return Difference(name, shapes, np.inf)
    if datatypes[0] in TOLERANCES:
        wrong, apart = apart_of_floats(wanted, got, limits.of(datatypes[0]))
    else:
        wrong = np.asarray(wanted != got)
        apart = np.where(wrong, distances(wanted, got), 0.0)
    if not wrong.any():
        return None
    flat = int(np.argmax(apart))
    place = tuple(int(index) for index in np.unravel_index(flat, wanted.shape))
    what = f"{int(np.count_nonzero(wrong))} of {wanted.size} elements"
    values = text_of(wanted[place]), text_of(got[place])
    return Difference(name, what, float(apart.reshape(-1)[flat]), place, *values)


def apart_of_floats(wanted: Array, got: Array, limit: Tolerance) -> tuple[Array, Array]:
    """Return which elements are too far away, and how far; NaN is where NaN was recorded."""
    first, second = wanted.astype(np.float64), got.astype(np.float64)
    equal = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(first - second)
        wrong = ~equal & ~(apart <= limit.atol + limit.rtol * np.abs(first))
    # An infinite limit allows nothing: infinities are equal or they are not.
    wrong |= ~equal & ~np.isfinite(first)
    return wrong, np.where(wrong, np.nan_to_num(apart, nan=np.inf, posinf=np.inf), 0.0)


def distances(wanted: Array, got: Array) -> Array | float:
    """Return how far whole numbers are from each other; texts are endlessly far."""
    if wanted.dtype.hasobject:
        return np.inf
    return np.abs(wanted.astype(np.float64) - got.astype(np.float64))


def text_of(value: object) -> str:
    """Write one element, cut where it is long."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
