"""Arrays that every engine makes, checks and writes in the same way."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inferd_engines.engine import Array, EngineError, Signature, Tensor


def shape_of(tensor: Tensor, rows: int) -> tuple[int, ...]:
    """Return an input's shape: `rows` first where that is free, other free dimensions 1."""
    first = tuple(rows if size is None else size for size in tensor.shape[:1])
    return first + tuple(1 if size is None else size for size in tensor.shape[1:])


def zeros(tensor: Tensor, rows: int) -> Array:
    """Return an input of zeros (empty strings for BYTES), of `shape_of`."""
    fill = b"" if tensor.dtype == object else 0
    return np.full(shape_of(tensor, rows), fill, dtype=tensor.dtype)


NOT_NPZ = (
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile,
)  # fmt: skip
"""What `read_npz` raises of a file that is none, or damaged."""


def read_npz(path: Path) -> dict[str, Array]:
    """Read the arrays of an .npz file, by name; raises what `NOT_NPZ` lists."""
    # A file that is damaged stays open where NumPy opens it.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def check_inputs(signature: Signature, inputs: Mapping[str, Array]) -> None:
    """Refuse what a runtime would refuse with a worse sentence, or would misread.

    Raises:
        EngineError: an input is missing or of another dtype than the signature's.
    """
    for tensor in signature.inputs:
        array = inputs.get(tensor.name)
        if array is None:
            raise EngineError(f"input {tensor.name!r} is missing")
        if array.dtype != tensor.dtype:
            raise EngineError(f"input {tensor.name!r} is {array.dtype} and must be {tensor.dtype}")


def write_into(buffer: Array, tensor: Tensor, result: Array) -> Array:
    """Copy an output into the buffer that was given for it, and return the buffer.

    Raises:
        EngineError: the buffer is of another shape or dtype than the result.
    """
    if (buffer.shape, buffer.dtype) != (result.shape, result.dtype):
        raise EngineError(
            f"output {tensor.name!r} is {result.dtype} {list(result.shape)}, and the buffer"
            f" given for it {buffer.dtype} {list(buffer.shape)}"
        )
    np.copyto(buffer, result)
    return buffer
