"""Rows in buckets: padded on the way in, cut and joined on the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inferd_engines.arrays import check_inputs, write_into
from inferd_engines.engine import Array, EngineError, Signature, Tensor
from inferd_engines.tensorrt.loaded import Shapes
from inferd_engines.tensorrt.profiles import fits


def check(signature: Signature, inputs: Mapping[str, Array]) -> None:
    """Refuse inputs that are not those of a signature.

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


def padded(inputs: Mapping[str, Array], bucket: int) -> Shapes:
    """Return the shapes of inputs in a bucket."""
    return {
        name: (bucket, *array.shape[1:]) if bucket else array.shape
        for name, array in inputs.items()
    }


def deliver(tensor: Tensor, result: Array, buffer: Array | None) -> Array:
    """Copy a result out of memory that is used again, into the caller's buffer if there is one.

    Raises:
        EngineError: the buffer is of another shape or dtype.
    """
    return result.copy() if buffer is None else write_into(buffer, tensor, result)


def joined(
    signature: Signature, parts: Sequence[Mapping[str, Array]], outputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Put the outputs of several runs together, in order."""
    return {
        tensor.name: deliver(
            tensor, np.concatenate([part[tensor.name] for part in parts]), outputs.get(tensor.name)
        )
        for tensor in signature.outputs
    }


def nothing(signature: Signature, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return outputs without rows."""
    return {
        tensor.name: deliver(tensor, empty(tensor), outputs.get(tensor.name))
        for tensor in signature.outputs
    }


def empty(tensor: Tensor) -> Array:
    """Return an output without rows."""
    return np.zeros((0, *(size or 0 for size in tensor.shape[1:])), dtype=tensor.dtype)
