"""One array to its place in a request, and one output of a response to an array."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from inferd import tensors
from inferd.oip.v2 import inference_pb2

from inferd_client import conversion
from inferd_client.errors import InvalidInput, InvalidResponse

InputTensor: TypeAlias = inference_pb2.ModelInferRequest.InferInputTensor
OutputTensor: TypeAlias = inference_pb2.ModelInferResponse.InferOutputTensor


def encode(name: str, value: npt.ArrayLike) -> tuple[InputTensor, bytes]:
    """Describe an array of any shape and serialise its elements, copying them once.

    Raises:
        InvalidInput: the value is no array, or the protocol has no datatype for it.
    """
    try:
        array = conversion.whole(value)
        datatype = tensors.datatype_of(array.dtype)
    except ValueError as error:
        raise InvalidInput(f"input {name!r}: {error}") from error
    tensor = InputTensor(name=name, datatype=datatype, shape=array.shape)
    if datatype != tensors.BYTES:
        return tensor, array.astype(tensors.DATATYPES[datatype], copy=False).tobytes()
    if array.dtype.kind == "O":
        _require_text(name, array.reshape(-1).tolist())
    return tensor, tensors.encode_bytes(array)


def _require_text(name: str, elements: Iterable[object]) -> None:
    # numpy makes object arrays of anything it cannot place: None, dict, huge integers.
    for element in elements:
        if not isinstance(element, bytes | str):
            kind = type(element).__name__
            raise InvalidInput(f"input {name!r}: BYTES elements are bytes or str, not {kind}")


def decode(output: OutputTensor, raw: bytes | None) -> tensors.Array:
    """Read one output; fixed-size elements in `raw` become a read-only view of it.

    Args:
        output: name, datatype and shape, and the elements where `raw` is None.
        raw: little-endian elements in row-major order.

    Raises:
        InvalidResponse: datatype, shape and elements do not agree.
    """
    dtype = tensors.DATATYPES.get(output.datatype)
    shape = tuple(output.shape)
    if dtype is None or min(shape, default=0) < 0:
        raise InvalidResponse(
            f"output {output.name!r} has datatype {output.datatype!r} and shape {list(shape)}"
        )
    try:
        flat = _from_contents(output) if raw is None else _from_raw(output, raw)
        return flat.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise InvalidResponse(f"output {output.name!r}: {error}") from error


def _from_raw(output: OutputTensor, raw: bytes) -> tensors.Array:
    dtype, count = tensors.DATATYPES[output.datatype], math.prod(output.shape)
    if output.datatype == tensors.BYTES:
        return tensors.decode_bytes(raw, count)
    if len(raw) != count * dtype.itemsize:
        raise ValueError(
            f"{len(raw)} bytes came for {output.datatype} of shape {list(output.shape)}, "
            f"which takes {count * dtype.itemsize}"
        )
    return np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)


def _from_contents(output: OutputTensor) -> tensors.Array:
    field = tensors.CONTENTS_FIELDS.get(output.datatype)
    if field is None:
        raise ValueError(f"{output.datatype} travels as raw contents, and none came")
    values = list(getattr(output.contents, field))
    if len(values) != math.prod(output.shape):
        raise ValueError(f"{len(values)} elements came for shape {list(output.shape)}")
    flat = np.empty(len(values), tensors.DATATYPES[output.datatype])
    flat[:] = values
    return flat
