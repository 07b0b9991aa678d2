"""Measures of each row of an input or output: a few numbers that mean something.

Every function is bounded: of a row at most MOST_ELEMENTS elements are looked at, of an image at
most SIDE rows and columns of pixels. What cannot be measured, such as the mean of nothing, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inferd_server.monitoring.drift.images import image_values

Array: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = Mapping[str, npt.NDArray[np.float64]]
"""One number for each row, by the name of the feature."""
MOST_ELEMENTS = 4096
SIDE = 64
MOST_CHANNELS = 4
MOST_COLUMNS = 16
"""Columns of a table that are each a feature of their own."""
MOST_LABELS = 64
"""Classes that are told apart; the rest count as one."""
PROJECTIONS = 4
MOST_AT_ONCE = 2**20
"""Elements that are measured at a time: this bounds the memory that it takes."""
MOST_TEXTS = 64
"""Texts of a row that are measured."""


class Kind(StrEnum):
    """What a tensor holds."""

    NUMBERS = "numbers"
    """Anything numeric: mean, spread, range, saturation, and how much is not finite."""
    COLUMNS = "columns"
    """[n] or [n, k] of few columns: each of them."""
    IMAGES = "images"
    PROBABILITIES = "probabilities"
    """[n, classes] that add up to one: confidence, entropy, and which class."""
    LOGITS = "logits"
    """The same once softmax was applied."""
    LABELS = "labels"
    """Numbers of classes or their names: which one."""
    TEXT = "text"
    """Bytes of a row."""
    PROJECTION = "projection"
    """An embedding, seen from a few fixed directions."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How the rows of one tensor become numbers."""

    tensor: str
    output: bool
    """False for an input."""
    kind: Kind
    low: float = 0.0
    """The least value of the reference: what is at it, or below, is saturated."""
    high: float = 0.0
    """The largest one, likewise."""
    channels: int = -1
    """Of an image: which axis of a row is the colour; -1: none."""
    labels: tuple[str, ...] = ()
    """Classes that are told apart, the most frequent ones of the reference."""
    sized: bool = False
    """True if rows differ in size, which is a feature then."""

    def values(self, array: Array) -> Values:
        """Return what is measured, for each row of the tensor."""
        if not len(array):
            return {}
        with np.errstate(all="ignore"):
            found = together([self._measured(part) for part in parts(array)])
        if self.sized:
            found["size"] = np.full(len(array), array[0].size, np.float64)
        return {self._name(feature): values for feature, values in found.items()}

    def categories(self) -> Mapping[str, tuple[str, ...]]:
        """Return the labels of those features that are classes and no numbers, by feature."""
        if self.kind in CLASSIFIED:
            return {self._name("class"): self.labels}
        return {}

    def _name(self, feature: str) -> str:
        return f"{self.tensor}{feature if feature.startswith('[') else '.' + feature}"

    def _measured(self, array: Array) -> Values:
        if self.kind is Kind.IMAGES:
            return self._images(array)
        if self.kind is Kind.LABELS:
            return {"class": indexes([label_of(one) for one in array.flat], self.labels)}
        if self.kind in CLASSIFIED:
            rows = flat_rows(array)
            return self._classes(softmax(rows) if self.kind is Kind.LOGITS else rows)
        if self.kind is Kind.NUMBERS:
            return numbers(thin(array), self.low, self.high)
        return SIMPLE[self.kind](array)

    def _images(self, array: Array) -> Values:
        pixels = floats(thin_image(array, self.channels))
        summary = numbers(pixels, self.low, self.high)
        grey = pixels if self.channels < 0 else pixels.mean(axis=self.channels + 1)
        return {
            "brightness": summary["mean"],
            "contrast": summary["spread"],
            **{name: summary[name] for name in ("saturation", "missing")},
            **image_values(np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)),
        }

    def _classes(self, probabilities: Array) -> Values:
        size = probabilities.shape[1]
        if not size:
            return {}
        known = np.where(probabilities > 0, probabilities, 1.0)
        entropy = -(probabilities * np.log(known)).sum(axis=1) / math.log(max(size, 2))
        largest = np.argmax(probabilities, axis=1)
        labels = [str(one) for one in largest.tolist()]
        confidence = probabilities.max(axis=1)
        return {
            "confidence": confidence,
            "entropy": entropy,
            "class": np.where(np.isnan(confidence), np.nan, indexes(labels, self.labels)),
        }


CLASSIFIED = (Kind.PROBABILITIES, Kind.LOGITS, Kind.LABELS)


def parts(array: Array) -> Iterator[Array]:
    """Yield the rows of a tensor, as many at a time as have MOST_AT_ONCE elements."""
    step = max(1, MOST_AT_ONCE // max(1, math.prod(array.shape[1:])))
    for begin in range(0, len(array), step):
        yield array[begin : begin + step]


def together(measured: Sequence[Values]) -> dict[str, npt.NDArray[np.float64]]:
    """Return what was measured of several rows as one."""
    if len(measured) == 1:
        return dict(measured[0])
    names = dict.fromkeys(name for part in measured for name in part)
    return {name: np.concatenate([one[name] for one in measured if name in one]) for name in names}


def numbers(array: Array, low: float, high: float) -> dict[str, npt.NDArray[np.float64]]:
    """Summarise the numbers of each row.

    Args:
        array: [n, ...].
        low: what is at most that is saturated.
        high: what is at least that, too.
    """
    rows = flat_rows(array)
    if not rows.shape[1]:
        nothing = np.full(len(rows), np.nan)
        return dict.fromkeys(("mean", "spread", "range", "saturation", "missing"), nothing)
    finite = np.isfinite(rows)
    saturated = ((rows <= low) | (rows >= high)) if high > low else np.zeros_like(finite)
    if finite.all():
        missing = np.zeros(len(rows))
        mean, spread = rows.mean(axis=1), rows.std(axis=1)
        reach = rows.max(axis=1) - rows.min(axis=1)
    else:
        missing = 1.0 - finite.mean(axis=1)
        mean, spread, reach = of_finite(rows, finite)
    return {
        "mean": mean,
        "spread": spread,
        "range": reach,
        "saturation": saturated.mean(axis=1),
        "missing": missing,
    }


def of_finite(rows: Array, finite: Array) -> tuple[Array, Array, Array]:
    """Return mean, spread and range of the finite numbers of each row, NaN where there are none.

    Args:
        rows: [n, elements].
        finite: which of them are, likewise.
    """
    count = finite.sum(axis=1, dtype=np.float64)
    count[count == 0] = np.nan
    mean = np.where(finite, rows, 0.0).sum(axis=1) / count
    squares = np.where(finite, rows - mean[:, None], 0.0) ** 2
    highest = np.where(finite, rows, -np.inf).max(axis=1)
    reach = highest - np.where(finite, rows, np.inf).min(axis=1)
    return mean, np.sqrt(squares.sum(axis=1) / count), np.where(np.isnan(count), np.nan, reach)


def columns(array: Array) -> Values:
    """Return each column of a table."""
    rows = flat_rows(array)
    if rows.shape[1] == 1:
        return {"value": rows[:, 0]}
    return {f"[{index}]": rows[:, index] for index in range(rows.shape[1])}


def lengths(array: Array) -> Values:
    """Return the bytes of the texts of each row."""
    rows = array.reshape(len(array), math.prod(array.shape[1:]))[:, :MOST_TEXTS]
    sizes = [sum(len(text) for text in row) for row in rows.tolist()]
    return {"length": np.array(sizes, np.float64)}


def projections(array: Array) -> Values:
    """Return each row seen from a few directions, which are the same in every process."""
    rows = flat_rows(thin(array))
    seen = rows @ directions(rows.shape[1])
    return {f"[{index}]": seen[:, index] for index in range(PROJECTIONS)}


@cache
def directions(size: int) -> npt.NDArray[np.float64]:
    """Return fixed directions [size, PROJECTIONS] of length 1, which look like random ones."""
    steps = np.arange(1, size + 1, dtype=np.float64)[:, None] ** 2
    # Multiples of irrational numbers: squares of steps times them are spread evenly over a circle.
    turns = steps * np.sqrt([2.0, 3.0, 5.0, 7.0])
    found: npt.NDArray[np.float64] = np.cos(2 * np.pi * turns) * math.sqrt(2 / max(size, 1))
    return found


def softmax(logits: Array) -> Array:
    """Return the probabilities of logits, by row."""
    if not logits.shape[1]:
        return logits
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = exponents / exponents.sum(axis=1, keepdims=True)
    return found


def indexes(found: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the place of each label, behind all of them for another one."""
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places.get(label, len(labels)) for label in found], np.float64)


def label_of(element: Any) -> str:
    """Return a label as text, whatever type it came as."""
    if isinstance(element, bytes):
        return element[:256].decode(errors="replace")
    return str(int(element))


def flat_rows(array: Array) -> npt.NDArray[np.float64]:
    """Return an array as numbers [n, elements of a row]."""
    return floats(array).reshape(len(array), math.prod(array.shape[1:]))


def floats(array: Array) -> npt.NDArray[np.float64]:
    """Return an array in the type that is calculated in."""
    found: npt.NDArray[np.float64] = array.astype(np.float64)
    return found


SIMPLE: Mapping[Kind, Callable[[Array], Values]] = {
    Kind.COLUMNS: columns,
    Kind.TEXT: lengths,
    Kind.PROJECTION: projections,
}
"""What is measured of tensors of which nothing more needs to be known."""


def thin(array: Array) -> Array:
    """Return evenly chosen elements of each row, as [n, elements]; a second time changes nothing.

    Args:
        array: [n, ...].
    """
    rows = array.reshape(len(array), math.prod(array.shape[1:]))
    return rows[:, :: max(1, math.ceil(rows.shape[1] / MOST_ELEMENTS))]


def thin_image(array: Array, channels: int) -> Array:
    """Return evenly chosen pixels of each image; a second time changes nothing.

    Args:
        array: [n, ...].
        channels: which axis of a row is the colour; -1: none.
    """
    steps = [slice(None)]
    for axis, size in enumerate(array.shape[1:]):
        most = MOST_CHANNELS if axis == channels else SIDE
        steps.append(slice(None, None, max(1, math.ceil(size / most))))
    return array[tuple(steps)]
