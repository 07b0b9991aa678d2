"""Values that a model's rows are tried with: usual ones, and those that fuzzers know to hurt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array
from inferd_engines.engine import Signature, Tensor
from inferd_engines.onnx_values import ModelFacts

TEXT = DATATYPES[BYTES]
WORDS = (
    b"", b"a", b"A b", b"one two three four", b"0", b"7", "Zürich".encode(), b"x" * 50, b"the",
)  # fmt: skip
LONG = b"word " * 9
SMALL = 0.01
"""By which usual numbers are made small ones."""
LARGE = 1e4
HALF_LARGE = 1e2
"""The same for numbers of 16 bits, whose largest is 65504."""
MODERATE = 1e3
"""Size of numbers up to which rounding is small beside any answer."""

Write: TypeAlias = Callable[[Array], None]
"""Fills the rows of a batch; the shape is (rows, ...)."""


@dataclass(frozen=True, slots=True)
class WatchedRow:
    """A row whose answer must stay, and what it holds."""

    row: Array
    moderate: bool
    """True if its answers in batches of other sizes differ by rounding only."""


@dataclass(frozen=True, slots=True)
class InputValues:
    """Values of one input."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Of one row."""
    below: int = 200
    """Whole numbers are drawn from 0 and less than this."""
    whole: bool = False
    """Draw whole numbers for an input of floats, too."""
    constants: tuple[float, ...] = ()
    categories: Mapping[int | None, tuple[Any, ...]] | None = None
    """By column (None: all), the only values to draw from; None: draw any."""
    own: Array | None = None
    """Rows that the model is known to take."""

    @property
    def row_bytes(self) -> int:
        """What a row takes; text as far as numpy tells."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def floats(self) -> bool:
        """True for numbers with a fraction; that of BF16 is a kind of its own."""
        return self.dtype.kind not in "iubO"

    def draw(self, rows: int, generator: np.random.Generator) -> Array:
        """Return usual rows, no two of them alike if that can be."""
        if self.own is not None:
            first = int(generator.integers(len(self.own)))
            return self.own[(first + np.arange(rows)) % len(self.own)]
        shape = (rows, *self.shape)
        if self.categories:
            return self._chosen(shape, generator)
        if self.dtype == TEXT:
            return _objects(
                [WORDS[i] for i in generator.integers(len(WORDS), size=shape).flat], shape
            )
        if self.floats and not self.whole:
            return _normal(self.dtype, shape, generator)
        below = 2 if self.dtype.kind == "b" else self._top + 1
        return generator.integers(0, below, shape).astype(self.dtype)

    @property
    def _top(self) -> int:
        """The largest whole number to draw."""
        least = np.iinfo(self.dtype).max if self.dtype.kind in "iu" else self.below
        return max(0, min(self.below - 1, int(least)))

    def _chosen(self, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        assert self.categories is not None
        drawn = np.empty(shape, self.dtype)
        columns = shape[-1] if len(shape) > 1 else 1
        flat = drawn.reshape(-1, columns)
        usual = next(iter(self.categories.values()))
        for column in range(columns):
            known = self.categories.get(column, self.categories.get(None, usual))
            elements = np.array([fill(self.dtype, value) for value in known], self.dtype)
            flat[:, column] = elements[generator.integers(len(known), size=len(flat))]
        return drawn

    def watched(self, generator: np.random.Generator) -> Iterator[WatchedRow]:
        """Yield the rows to watch, the most usual ones first."""
        usual = self.draw(1, generator)[0]
        yield WatchedRow(usual, moderate=True)
        if self.own is not None:
            yield from (WatchedRow(row, moderate=True) for row in self.own[:4])
        if self.dtype == TEXT:
            yield WatchedRow(self.draw(1, generator)[0], moderate=True)
            return
        yield WatchedRow(self._small(usual), moderate=True)
        for value in (0, self._top, *self.constants):
            yield WatchedRow(self._padded(usual, value), abs(value) <= MODERATE)

    def _small(self, usual: Array) -> Array:
        if self.floats:
            small: Array = (usual * self.dtype.type(SMALL)).astype(self.dtype)
            return small
        return usual if self.dtype.kind == "b" else usual % self.dtype.type(2)

    def _padded(self, usual: Array, value: float) -> Array:
        """Return a row with one value in the second half of its last dimension, as in padding."""
        row = usual.copy()
        if row.ndim and row.shape[-1] > 1:
            row[..., row.shape[-1] // 2 :] = fill(self.dtype, value)
        return row

    def companies(self, others: Array, row: Array) -> Mapping[str, Write]:
        """Return what may be around a row, by what it is.

        Args:
            others: usual rows, as many as the batch has.
            row: the watched one.
        """
        found: dict[str, Write] = {"other": _copies(others), "equal": _copies(row)}
        if self.dtype == TEXT:
            known = {value for values in (self.categories or {}).values() for value in values}
            words = [LONG, b"", *sorted(fill(self.dtype, value) for value in known)[:4]]
            return found | {f"all {word[:9]!r}": _copies(word) for word in words}
        if self.floats:
            scale = HALF_LARGE if self.dtype.itemsize == 2 else LARGE
            found["large"] = lambda target: np.copyto(target, others * self.dtype.type(scale))
        for value in self._extremes():
            found[f"all {value:g}"] = _copies(fill(self.dtype, value))
        return found

    def _extremes(self) -> Sequence[float]:
        usual = (0, 1, self._top, *self.constants)
        if self.dtype.kind == "b":
            return (0, 1)
        if self.floats:
            largest = float(ml_dtypes.finfo(self.dtype).max)  # type: ignore[no-untyped-call]
            return (math.nan, math.inf, -math.inf, *usual, largest, -largest)
        limits = np.iinfo(self.dtype)
        return (*usual, int(limits.min), int(limits.max))


def fill(dtype: np.dtype[Any], value: Any) -> Any:
    """Return a value as an element of an input; whole numbers at most as large as they can be."""
    if dtype == TEXT:
        return value if isinstance(value, bytes) else str(value).encode()
    if isinstance(value, bytes):
        return dtype.type(0)
    if dtype.kind == "b":
        return bool(value)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return dtype.type(min(max(int(value), int(limits.min)), int(limits.max)))
    with np.errstate(over="ignore"):
        return dtype.type(value)


def _copies(value: Any) -> Write:
    def write(target: Array) -> None:
        target[...] = value

    return write


def _normal(dtype: np.dtype[Any], shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if dtype in (np.float32, np.float64):
        return generator.standard_normal(shape, dtype.type)
    drawn = np.empty(shape, dtype)
    for row in range(len(drawn)):
        # Row by row, because the numbers are made in a wider type first.
        drawn[row] = generator.standard_normal(shape[1:], np.float32)
    return drawn


def _objects(elements: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    drawn = np.empty(len(elements), TEXT)
    drawn[:] = elements
    return drawn.reshape(shape)


def own_values(
    signature: Signature, facts: ModelFacts, rows: Mapping[str, Array]
) -> Sequence[InputValues]:
    """Return values around rows that the model is known to take, all inputs as many.

    Args:
        signature: of the model.
        facts: from its file.
        rows: by input, of its dtype and shape; the first dimension counts rows.
    """
    return [
        replace(_values(tensor, facts, rows[tensor.name].shape[1:]), own=rows[tensor.name])
        for tensor in signature.inputs
    ]


def candidates(signature: Signature, facts: ModelFacts) -> Iterator[Sequence[InputValues]]:
    """Yield values for all inputs that the model may take, the most telling ones first."""
    for size in _sizes(signature, facts):
        shapes = {tensor.name: row_shape(tensor, size) for tensor in signature.inputs}
        usual = [_values(tensor, facts, shapes[tensor.name]) for tensor in signature.inputs]
        known = any(one.categories for one in usual)
        for below in (200, 10, 2, 1):
            yield [replace(one, below=below) for one in usual]
        if any(one.floats for one in usual):
            # Numbers of categories, most likely.
            for below in (10, 2, 1):
                yield [replace(one, below=below, whole=True) for one in usual]
        if known:
            yield [replace(one, categories=None) for one in usual]


def _values(tensor: Tensor, facts: ModelFacts, shape: tuple[int, ...]) -> InputValues:
    known = facts.categories.get(tensor.name) if tensor.dtype.kind in "iufO" else None
    return InputValues(tensor.name, tensor.dtype, shape, 200, False, facts.constants, known)


# Of sequences and images; 1 comes late, because much that mixes has nothing to mix in it.
USUAL_SIZES = (16, 64, 7, 224, 1)


def _sizes(signature: Signature, facts: ModelFacts) -> Sequence[int]:
    if all(None not in tensor.shape[1:] for tensor in signature.inputs):
        return (1,)
    return tuple(dict.fromkeys((*USUAL_SIZES, *facts.sizes, 2, 3, 4, 8, 32)))


def row_shape(tensor: Tensor, size: int) -> tuple[int, ...]:
    """Return the shape of a row whose free dimensions are of this size.

    One whose name is a sum, as in "past + sequence", is as many times as large.
    """
    axes = tensor.axes or ("",) * len(tensor.shape)
    pairs = zip(tensor.shape[1:], axes[1:], strict=True)
    return tuple(_sum(name, size) if fixed is None else fixed for fixed, name in pairs)


def _sum(name: str, size: int) -> int:
    parts = [part.strip() for part in name.split("+")]
    return sum(int(part) if part.isdecimal() else size for part in parts)
