"""The class that a model chose for each row, from one of its outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from inferd.tensors import BYTES, Array, datatype_of
from inferd_engines.engine import Signature, Tensor

from inferd_server.errors import InvalidInput
from inferd_server.models.config import ModelConfig


def predicting_output(signature: Signature, config: ModelConfig) -> Tensor:
    """Return the output whose classes are predictions.

    The one that model.yaml names; else the only one with labels, the only one of numbers, or the
    only one of floats.

    Raises:
        InvalidInput: it cannot be told, or is text.
    """
    known = {tensor.name: tensor for tensor in signature.outputs}
    if config.feedback is not None and config.feedback.output is not None:
        return _numbers(known, config.feedback.output)
    numbers = [tensor for tensor in known.values() if datatype_of(tensor.dtype) != BYTES]
    floats = [tensor for tensor in numbers if is_float(tensor.dtype)]
    labelled = [tensor for tensor in numbers if config.labels.get(tensor.name)]
    for found in (labelled, numbers, floats):
        if len(found) == 1:
            return found[0]
    raise InvalidInput(
        f"which output has the classes? The model gives {', '.join(known)}; "
        "feedback.output in its model.yaml names one of numbers"
    )


def _numbers(known: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in known:
        raise InvalidInput(
            f"model.yaml names {name!r} as feedback.output; the model gives {', '.join(known)}"
        )
    if datatype_of(known[name].dtype) == BYTES:
        raise InvalidInput(f"output {name!r} is text; feedback.output is one of numbers")
    return known[name]


def predicted(array: Array, *, batched: bool, threshold: float) -> tuple[Array, Array]:
    """Return the class of each row and how sure the model is of it.

    Args:
        array: rows first if `batched`; otherwise the whole array is one row. Several numbers of a
            row are scores, of which the highest wins, the first of equal ones; a single whole
            number is the class itself, and a single float the score of class 1.
        batched: whether the first dimension counts rows.
        threshold: score from which a single float means class 1.

    Returns:
        [rows] int64, and [rows] float64 with NaN where nothing is known.

    Raises:
        InvalidInput: the rows are empty.
    """
    rows = array.reshape(array.shape[0] if batched else 1, -1)
    if not rows.shape[1]:
        raise InvalidInput("an output without scores has no prediction")
    if not is_float(array.dtype) and rows.shape[1] == 1:
        return rows[:, 0].astype(np.int64), np.full(len(rows), np.nan)
    if rows.shape[1] == 1:
        scores = rows[:, 0].astype(np.float64)
        positive = scores >= threshold
        return positive.astype(np.int64), np.where(positive, scores, 1 - scores)
    if not is_float(array.dtype):
        return rows.argmax(axis=1), np.full(len(rows), np.nan)
    scores = rows.astype(np.float64)
    classes = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return classes, scores[np.arange(len(rows)), classes]


def class_count(output: Tensor, *, batched: bool) -> int | None:
    """Return how many classes a model tells apart; None where its signature does not say."""
    sizes = output.shape[1:] if batched else output.shape
    if any(size is None for size in sizes):
        return None
    scores = int(np.prod([size for size in sizes if size is not None], initial=1))
    if scores > 1:
        return scores
    return 2 if is_float(output.dtype) or output.dtype == np.bool_ else None


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """True for floats, bfloat16 among them."""
    return datatype_of(dtype) in {"FP16", "FP32", "FP64", "BF16"}
