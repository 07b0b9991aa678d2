"""Classification: the highest scores of an output as text, instead of the whole tensor.

Source: Triton's classification extension. One rule for every shape: behind the batch dimension
everything is one set of classes, numbered in row-major order; of a model without a batch
dimension the whole tensor is one. So the answer is [rows, count] or [count].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Tensor

from inferd_server.errors import InvalidInput

MOST_CLASSES = 100_000
"""In one output of one answer."""
SMALL_CLASSES, SMALL_SCORES = 128, 16_384
"""Classes and scores that take well below a millisecond, in one output."""


def check_classes(tensor: Tensor, count: int, rows: int, *, batched: bool) -> None:
    """Refuse what is too much before it runs, as far as the signature tells.

    Args:
        tensor: the output.
        count: classes asked for.
        rows: of the request.
        batched: whether the first dimension is the batch.

    Raises:
        InvalidInput: the answer would have too many classes.
    """
    sizes = [size for size in (tensor.shape[1:] if batched else tensor.shape) if size is not None]
    if len(sizes) == len(tensor.shape) - batched:
        _check_most(tensor.name, min(count, math.prod(sizes)) * (rows if batched else 1))


def classify(
    array: Array, count: int, labels: Sequence[str], *, batched: bool, name: str = ""
) -> Array:
    """Turn scores into their `count` highest classes, as BYTES "score:index[:label]".

    Args:
        array: scores of any number datatype, rows first if `batched`.
        count: classes of each set; fewer where a set is smaller.
        labels: names of the classes, by index.
        batched: whether each row is a set; otherwise the whole array is one.
        name: of the output, for the error.

    Returns:
        [rows, count], or [count].

    Raises:
        InvalidInput: more than MOST_CLASSES.
    """
    rows, classes = set_sizes(array, batched=batched)
    best = min(count, classes)
    _check_most(name, rows * best)
    found = np.empty((rows, best), dtype=object)
    for row, scores in enumerate(array.reshape(rows, classes)):
        top = highest(scores, best)
        found[row] = texts(scores[top], top, labels)
    return found if batched else found.reshape(best)


def takes_long(array: Array, count: int, *, batched: bool) -> bool:
    """True if classifying takes so long that nobody else should wait for it."""
    rows, classes = set_sizes(array, batched=batched)
    return array.size > SMALL_SCORES or rows * min(count, classes) > SMALL_CLASSES


def set_sizes(array: Array, *, batched: bool) -> tuple[int, int]:
    """Return the number of sets, and the classes of each."""
    rows = array.shape[0] if batched else 1
    return rows, math.prod(array.shape[1:] if batched else array.shape)


def highest(scores: Array, count: int) -> Array:
    """Return the indices of the highest scores, falling; equal ones by index, NaN last."""
    # Falling: large integers have no exact float, and the lowest has no negative.
    falling = ~scores if scores.dtype.kind in "iu" else -scores.astype(np.float64)
    if 0 < count < len(falling):
        last = np.partition(falling, count - 1)[count - 1]
        if last == last:  # noqa: PLR0124 NaN is not
            before = np.flatnonzero(falling < last)
            equal = np.flatnonzero(falling == last)[: count - len(before)]
            order = np.argsort(falling[before], kind="stable")
            return np.concatenate([before[order], equal])
    return np.argsort(falling, kind="stable")[:count]


def texts(scores: Array, indices: Array, labels: Sequence[str]) -> list[bytes]:
    """Return the text of each class."""
    whole = scores.dtype.kind in "iu"
    numbers = scores.tolist() if whole else [f"{x:f}" for x in scores.astype(np.float64).tolist()]
    names = [f":{labels[i]}" if i < len(labels) else "" for i in indices.tolist()]
    parts = zip(numbers, indices.tolist(), names, strict=True)
    return [f"{number}:{index}{label}".encode() for number, index, label in parts]


def _check_most(name: str, classes: int) -> None:
    if classes > MOST_CLASSES:
        raise InvalidInput(
            f"output {name!r}: the answer would have {classes} classes; at most {MOST_CLASSES} are "
            "written as text; ask for fewer, or for the tensor"
        )
