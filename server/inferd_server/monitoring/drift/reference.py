"""The reference of a version: what is measured, and how the measured numbers were distributed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from inferd_server.monitoring.drift.measures import (
    CLASSIFIED,
    MOST_COLUMNS,
    MOST_LABELS,
    Array,
    Kind,
    Measure,
    Values,
    flat_rows,
    label_of,
    parts,
    thin,
    thin_image,
    together,
)

BINS = 40
MOST_FEATURES = 64
"""Of a version; those of outputs go before those of inputs."""
LEAST_ROWS = 100
"""Of a reference."""
MOST_ROWS = 5000
"""Of a reference; of a larger one they are chosen evenly."""
LEAST_SIDE = 8
"""Of what is taken for an image."""
SLACK = 1e-5
"""How far a value may be from an edge and still count as equal to it: runs of other batch sizes
round otherwise."""
Tensors: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a model: inputs and outputs by name, rows first."""

    inputs: Tensors
    outputs: Tensors

    @property
    def form(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """What must be equal for rows to be put together."""
        tensors = (*self.inputs.items(), *self.outputs.items())
        return tuple((name, array.dtype.str, array.shape[1:]) for name, array in tensors)

    def tensor(self, measure: Measure) -> Array | None:
        """Return the tensor that is measured; None where it is not there."""
        return (self.outputs if measure.output else self.inputs).get(measure.tensor)


def aligned(inputs: Tensors, outputs: Tensors) -> RowBatch:
    """Return the tensors of a request that have the rows of most, without those of others.

    One value for all rows, such as an input that may be left out, is not compared.
    """
    lengths = Counter(len(one) for one in (*inputs.values(), *outputs.values()) if one.ndim)
    rows = max(lengths, key=lambda length: lengths[length], default=0)
    return RowBatch(
        {name: array for name, array in inputs.items() if array.ndim and len(array) == rows},
        {name: array for name, array in outputs.items() if array.ndim and len(array) == rows},
    )


def rows_of(batch: RowBatch) -> int:
    """Return how many rows all tensors have; 0 where they do not agree."""
    rows = {
        len(array) if array.ndim else -1
        for array in (*batch.inputs.values(), *batch.outputs.values())
    }
    return max(0, rows.pop()) if len(rows) == 1 else 0


@dataclass(frozen=True, slots=True)
class Hints:
    """What model.yaml says of the tensors."""

    logits: tuple[str, ...] = ()
    """Outputs whose softmax are probabilities."""
    embedding: str = ""
    """An output that is seen from a few directions besides; "": none."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """NCHW or NHWC, by input that is an image."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One measured number of each row, and how it was distributed in the reference."""

    name: str
    edges: tuple[float, ...]
    """Rising; a value that equals one is below it."""
    counts: tuple[int, ...]
    """Rows in each bin: one more than edges, and at last those that could not be measured."""
    labels: tuple[str, ...] = ()
    """Of the bins of a feature that is a class, whose bins have no order; the one behind them is
    that of all other classes."""

    @property
    def ordered(self) -> bool:
        """True for a number, false for a class."""
        return not self.labels


@dataclass(frozen=True, slots=True)
class Reference:
    """What the rows of a version are compared with."""

    source: str
    """Where it comes from, for people."""
    rows: int
    measures: tuple[Measure, ...]
    features: tuple[Feature, ...]

    def count(self, batch: RowBatch) -> tuple[tuple[int, ...], ...]:
        """Return how many rows fall into each bin of each feature.

        What is not there, or is not as in the reference, is left out.
        """
        return self.bins(measured(self.measures, batch))

    def bins(self, values: Values) -> tuple[tuple[int, ...], ...]:
        """Return how many of some measured values fall into each bin of each feature."""
        return tuple(
            binned(feature.edges, values[feature.name])
            if feature.name in values
            else (0,) * len(feature.counts)
            for feature in self.features
        )


class Unfit(Exception):
    """Data that can be no reference; the text says why."""


def make_reference(
    batches: Sequence[RowBatch], hints: Hints, source: str, least: int = LEAST_ROWS
) -> Reference:
    """Find out what can be measured of a version, and measure it.

    Args:
        batches: inputs and outputs of some rows.
        hints: of model.yaml.
        source: where the data is from.
        least: rows that it must have.

    Raises:
        Unfit: there are too few rows, or nothing that can be measured.
    """
    alike = joined(batches)
    rows = sum(map(rows_of, alike))
    if rows < least:
        raise Unfit(f"it has {rows} rows, and at least {least} are needed")
    # Of rows that differ in size, those of the most frequent one tell what the tensors are.
    measures = measures_of(alike[0], hints)
    if len(alike) > 1:
        measures = tuple(replace(one, sized=differs(one, alike)) for one in measures)
    values = together([measured(measures, batch) for batch in alike])
    labels = {name: of for one in measures for name, of in one.categories().items()}
    features = tuple(
        feature_of(name, found, labels.get(name, ()))
        for name, found in list(values.items())[:MOST_FEATURES]
    )
    if not features:
        raise Unfit("it has nothing that can be measured")
    return Reference(source, rows, measures, features)


def joined(batches: Sequence[RowBatch]) -> list[RowBatch]:
    """Return batches whose rows have the same tensors as one, the largest first."""
    alike: dict[object, list[RowBatch]] = {}
    for batch in batches:
        if rows_of(batch):
            alike.setdefault(batch.form, []).append(batch)
    found = [
        RowBatch(
            {name: np.concatenate([one.inputs[name] for one in same]) for name in same[0].inputs},
            {name: np.concatenate([one.outputs[name] for one in same]) for name in same[0].outputs},
        )
        for same in alike.values()
    ]
    return sorted(found, key=rows_of, reverse=True)


def differs(measure: Measure, batches: Sequence[RowBatch]) -> bool:
    """True if rows of a tensor differ in size, and are no image."""
    sizes = {
        math.prod(array.shape[1:])
        for batch in batches
        if (array := batch.tensor(measure)) is not None
    }
    return len(sizes) > 1 and measure.kind in (Kind.NUMBERS, Kind.COLUMNS)


def chosen(batch: RowBatch, most: int) -> RowBatch:
    """Return at most so many rows, evenly chosen."""
    step = slice(None, None, max(1, math.ceil(rows_of(batch) / most)))
    return RowBatch(
        {name: array[step] for name, array in batch.inputs.items()},
        {name: array[step] for name, array in batch.outputs.items()},
    )


def measures_of(batch: RowBatch, hints: Hints) -> tuple[Measure, ...]:
    """Return what is measured of each tensor, outputs first."""
    found: list[Measure] = []
    for name, array in batch.outputs.items():
        found += _of_output(name, array, hints)
    for name, array in batch.inputs.items():
        if (one := _of_input(name, array, hints.formats.get(name, ""))) is not None:
            found.append(one)
    return tuple(found)


def _of_output(name: str, array: Array, hints: Hints) -> list[Measure]:
    size = math.prod(array.shape[1:])
    if array.dtype == object or (array.dtype.kind in "iub" and size == 1):
        return _labels(Measure(name, output=True, kind=Kind.LABELS), array)
    if not numeric(array):
        return []
    if array.ndim == 2 and size > 1 and name in hints.logits:
        return _labels(Measure(name, output=True, kind=Kind.LOGITS), array)
    if is_distribution(array):
        return _labels(Measure(name, output=True, kind=Kind.PROBABILITIES), array)
    found = [_numeric(Measure(name, output=True, kind=Kind.NUMBERS), array)]
    if name == hints.embedding:
        return [*found, Measure(name, output=True, kind=Kind.PROJECTION)]
    return found


def _of_input(name: str, array: Array, image: str) -> Measure | None:
    if array.dtype == object:
        return Measure(name, output=False, kind=Kind.TEXT)
    if not numeric(array):
        return None
    channels = channels_of(array.shape[1:], image)
    if channels is not None:
        return _numeric(Measure(name, output=False, kind=Kind.IMAGES, channels=channels), array)
    return _numeric(Measure(name, output=False, kind=Kind.NUMBERS), array)


def _numeric(measure: Measure, array: Array) -> Measure:
    """Return the measure with the extremes of the reference; few columns are each a feature."""
    size = math.prod(array.shape[1:])
    if measure.kind is Kind.NUMBERS and array.ndim <= 2 and 1 <= size <= MOST_COLUMNS:
        return replace(measure, kind=Kind.COLUMNS)
    low, high = np.inf, -np.inf
    for part in parts(array):
        looked = thin_image(part, measure.channels) if measure.kind is Kind.IMAGES else thin(part)
        values = flat_rows(looked)
        values = values[np.isfinite(values)]
        low, high = values.min(initial=low), values.max(initial=high)
    return measure if low > high else replace(measure, low=float(low), high=float(high))


def _labels(measure: Measure, array: Array) -> list[Measure]:
    """Return the measure with the classes that it tells apart; none where they are no classes."""
    if measure.kind is Kind.LABELS:
        found = Counter(label_of(one) for one in array.flat)
        if len(found) > max(2 * MOST_LABELS, len(array) // 4):
            # Such as a text that is generated, or a number: no classes.
            return []
    else:
        classes = np.argmax(array, axis=1).tolist()
        found = Counter({str(one): 0 for one in range(min(MOST_LABELS, array.shape[1]))})
        found.update(str(one) for one in classes)
    labels = tuple(label for label, _ in found.most_common(MOST_LABELS))
    return [replace(measure, labels=labels)]


def is_distribution(array: Array) -> bool:
    """True for probabilities of at least two classes in each row."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind in "iub":
        return False
    with np.errstate(all="ignore"):
        return all(
            bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < 1e-2).all())
            for rows in map(flat_rows, parts(array))
        )


def channels_of(shape: Sequence[int], image: str) -> int | None:
    """Return which axis of a row is the colour, -1 for none; None if it is no image.

    Args:
        shape: of a row.
        image: NCHW or NHWC, where model.yaml says so.
    """
    if len(shape) == 3:
        channels = {"NCHW": 0, "NHWC": 2}.get(image)
        if channels is None:
            channels = next((axis for axis in (0, 2) if shape[axis] in (1, 3, 4)), None)
        if channels is None:
            return None
        sides = [size for axis, size in enumerate(shape) if axis != channels]
        return channels if image or min(sides) >= LEAST_SIDE else None
    return -1 if len(shape) == 2 and min(shape) >= LEAST_SIDE else None


def numeric(array: Array) -> bool:
    """True for numbers, those of ml_dtypes among them, and truth values."""
    return array.dtype.kind in "iubf" or array.dtype.name == "bfloat16"


def measured(measures: Sequence[Measure], batch: RowBatch) -> Values:
    """Return what is measured of rows; what does not fit is left out."""
    found: dict[str, Array] = {}
    for measure in measures:
        array = batch.tensor(measure)
        if array is not None and fits(measure, array):
            found |= measure.values(array)
    return found


def fits(measure: Measure, array: Array) -> bool:
    """True if a tensor can be measured so: an answer may have another form than the reference."""
    textual = array.dtype == object
    if measure.kind is Kind.TEXT:
        return textual
    if measure.kind is Kind.LABELS:
        return array.size == len(array) and (textual or array.dtype.kind in "iub")
    if textual or not numeric(array):
        return False
    if measure.kind is Kind.IMAGES:
        return array.ndim == (3 if measure.channels < 0 else 4) and min(array.shape[1:]) > 0
    return measure.kind not in CLASSIFIED or array.ndim == 2


def feature_of(name: str, values: Array, labels: tuple[str, ...]) -> Feature:
    """Return a feature with bins that hold about equally many of the values."""
    edges = tuple(place + 0.5 for place in range(len(labels))) if labels else edges_of(values)
    return Feature(name, edges, binned(edges, values), labels)


def edges_of(values: Array) -> tuple[float, ...]:
    """Return edges of at most BINS quantiles; a value that is frequent has a bin of its own."""
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:
        return ()
    places = np.arange(1, BINS) * (finite.size - 1) // BINS
    quantiles, often = np.unique(finite[places], return_counts=True)
    slack = SLACK * max(abs(finite[0]), abs(finite[-1]), 1e-9)
    below = quantiles[often > 1] - slack
    return tuple(np.unique(np.concatenate([below, quantiles + slack])).tolist())


def binned(edges: Sequence[float], values: Array) -> tuple[int, ...]:
    """Return how many values fall into each bin, and at last how many are not a number."""
    places = np.searchsorted(np.asarray(edges, np.float64), values, side="left")
    places = np.where(np.isnan(values), len(edges) + 1, places)
    return tuple(np.bincount(places, minlength=len(edges) + 2).tolist())
