"""How tensors travel in the Open Inference Protocol: the rules that a .proto cannot state.

Both sides of the wire use this module, so that they cannot disagree. Source: the "Tensor
Data" section of the Open Inference Protocol v2 and Triton's binary BYTES format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Buffer: TypeAlias = bytes | bytearray | memoryview

BYTES = "BYTES"

# BYTES elements are Python `bytes` in an array of objects.
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(np.object_),
}

# The field of InferTensorContents that carries a datatype; FP16 and BF16 have none.
CONTENTS_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: npt.DTypeLike) -> str:
    """Return the protocol's name of a numpy dtype; strings of any kind are BYTES.

    Raises:
        ValueError: the protocol has no name for this dtype (complex, datetime, ...).
    """
    kind = np.dtype(dtype)
    if kind.kind in "SUO":
        return BYTES
    try:
        return _NAMES[kind.newbyteorder("<") if kind.kind in "iuf" else kind]
    except KeyError:
        raise ValueError(f"the protocol has no datatype for numpy's {kind}") from None


def encode_bytes(array: Array) -> bytes:
    """Serialise BYTES elements in row-major order, each after its 4-byte length.

    Elements may be `bytes`, `str` (sent as UTF-8) or anything with a text form.
    """
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        data = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def decode_bytes(data: Buffer, count: int) -> Array:
    """Read exactly `count` BYTES elements into a flat array of `bytes` objects.

    Raises:
        ValueError: a length points past the end, or elements are missing or left over.
    """
    # One copy of all: parts of it are made quicker than parts of a view.
    whole = bytes(memoryview(data).cast("B"))
    size = len(whole)
    elements = np.empty(min(count, size // _LENGTH.size), dtype=np.object_)
    offset = 0
    for index in range(count):
        start = offset + _LENGTH.size
        if start > size:
            raise ValueError(f"it ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(whole, offset)
        offset = start + length
        if offset > size:
            raise ValueError(f"element {index} says {length} bytes, and {size - start} are left")
        elements[index] = whole[start:offset]
    if offset != size:
        raise ValueError(f"{size - offset} bytes are left after element {count - 1}")
    return elements
