"""Rows in buckets: padded on the way in, cut and joined on the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd_engines.arrays import check_inputs, write_into
from inferd_engines.engine import Array, EngineError, Signature, Tensor
from inferd_engines.tensorrt.profiles import fits


def check(signature: Signature, inputs: Mapping[str, Array], rows: int | None) -> None:
    """Refuse inputs that are not those of a signature.

    Args:
        signature: of the model.
        inputs: by name.
        rows: that each has to have; None for a plan without a batch dimension.

    Raises:
        EngineError: one is missing, or of another dtype or shape.
    """
    check_inputs(signature, inputs)
    for tensor in signature.inputs:
        shape = inputs[tensor.name].shape
        if not fits(shape, tensor.shape):
            raise EngineError(
                f"input {tensor.name!r} has shape {list(shape)}, and the model {list(tensor.shape)}"
            )
        if rows is not None and shape[0] != rows:
            raise EngineError(
                f"input {tensor.name!r} has {shape[0]} rows in a batch of {rows}; a model whose "
                "rows are not a batch needs a plan without one (tensorrt.batched: false)"
            )


def deliver(tensor: Tensor, result: Array, buffer: Array | None) -> Array:
    """Copy a result out of memory that is used again, into the caller's buffer if there is one.

    Raises:
        EngineError: the buffer is of another shape or dtype.
    """
    return result.copy() if buffer is None else write_into(buffer, tensor, result)


def cut(tensor: Tensor, whole: Array, rows: int, bucket: int) -> Array:
    """Return an output without the rows that only fill the bucket up.

    Raises:
        EngineError: it has not one row for each row of the bucket: which ones are padding?
    """
    check_rows(tensor, whole, bucket)
    return whole[:rows]


def check_rows(tensor: Tensor, array: Array, rows: int) -> None:
    """Refuse an output that cannot be split by rows.

    Raises:
        EngineError: it has not one row for each row of the batch.
    """
    if not array.ndim or array.shape[0] != rows:
        raise EngineError(
            f"output {tensor.name!r} has shape {list(array.shape)} for a batch of {rows} rows"
        )


def joined(
    signature: Signature,
    parts: Sequence[tuple[int, Mapping[str, Array]]],
    outputs: Mapping[str, Array],
) -> dict[str, Array]:
    """Put the outputs of several runs together.

    Args:
        signature: of the model.
        parts: rows and outputs of each run, in order.
        outputs: buffers to write into, by name.

    Raises:
        EngineError: one has other rows, they differ in more than rows, or a buffer does not fit.
    """
    for tensor in signature.outputs:
        for rows, part in parts:
            check_rows(tensor, part[tensor.name], rows)
    return {
        tensor.name: deliver(
            tensor,
            stacked(tensor, [part[tensor.name] for _, part in parts]),
            outputs.get(tensor.name),
        )
        for tensor in signature.outputs
    }


def stacked(tensor: Tensor, parts: Sequence[Array]) -> Array:
    """Return the rows of an output of several runs, one after the other.

    Raises:
        EngineError: they differ in more than their rows, as data may decide.
    """
    try:
        return np.concatenate(parts)
    except ValueError as error:
        shapes = " and ".join(str(list(part.shape)) for part in parts)
        raise EngineError(
            f"output {tensor.name!r} has shapes {shapes} in the parts of one batch"
        ) from error


def nothing(signature: Signature, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return outputs without rows."""
    return {
        tensor.name: deliver(tensor, empty(tensor), outputs.get(tensor.name))
        for tensor in signature.outputs
    }


def empty(tensor: Tensor) -> Array:
    """Return an output without rows."""
    return np.zeros((0, *(size or 0 for size in tensor.shape[1:])), dtype=tensor.dtype)
