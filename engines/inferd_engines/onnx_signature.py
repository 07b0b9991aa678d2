"""The signature of an ONNX Runtime session in numpy's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from inferd_engines.engine import EngineError, Signature, Tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

# ONNX Runtime's element types that the Open Inference Protocol can carry.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "float16": np.dtype(np.float16),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "string": np.dtype(np.object_),
}

STRINGS = DTYPES["string"]

CURES: Mapping[str, str] = {
    "input": "export the model so that it takes arrays: for a DictVectorizer or a list of tensors "
    "leave that step to the caller, and give an optional input a value or leave it out",
    "output": "export the model so that it gives arrays: for scikit-learn with the converter's "
    "options={'zipmap': False}, for a list of tensors with one output for each, or joined by "
    "ConcatFromSequence",
}
"""What to do about a type that cannot be served (docs/exporting.md)."""

_TENSOR = re.compile(r"tensor\((\w+)\)")
# Names that shape inference makes up for dimensions it does not know.
_INVENTED = re.compile(r"unk__\d+")


def read_signature(session: InferenceSession, *, text: bool = True) -> tuple[Signature, str]:
    """Return inputs and outputs in the order of the file, and why outputs are missing, if any are.

    Args:
        session: of the model.
        text: True if its strings must be UTF-8.

    Raises:
        EngineError: an input, or every output, is of a type that cannot be served.
    """
    inputs = tuple(read_tensor(arg, "input", text=text) for arg in session.get_inputs())
    outputs, refusals = [], []
    for arg in session.get_outputs():
        try:
            outputs.append(read_tensor(arg, "output", text=text))
        except EngineError as error:
            refusals.append(str(error))
    why = "; ".join(refusals)
    if refusals and not outputs:
        raise EngineError(why)
    return Signature(inputs, tuple(outputs)), why


def read_tensor(arg: NodeArg, role: str, *, text: bool) -> Tensor:
    """Return one input or output; dimensions with a name or without a size are free.

    Raises:
        EngineError: it is not a tensor, or of a type that cannot be served.
    """
    dtype = read_dtype(arg.type, f"{role} {arg.name!r}", role)
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in arg.shape)
    axes = tuple(axis_name(size) for size in arg.shape)
    return Tensor(arg.name, dtype, shape, axes, text and dtype == STRINGS)


def read_dtype(type_name: str, subject: str, role: str) -> np.dtype[Any]:
    """Return the dtype of a type such as "tensor(float)".

    Raises:
        EngineError: it is a sequence, map, optional or sparse tensor, or its elements have
            no datatype in the Open Inference Protocol (float8, int4, complex).
    """
    tensor = _TENSOR.fullmatch(type_name)
    if tensor is None:
        raise EngineError(
            f"{subject} is {type_name}, and only tensors can be served; {CURES[role]}"
        )
    try:
        return DTYPES[tensor.group(1)]
    except KeyError:
        raise EngineError(
            f"{subject} is {type_name}, for which the protocol has no datatype; end the model with "
            "a Cast to a type that it has, such as FP32, or begin it with one"
        ) from None


def axis_name(size: int | str | None) -> str:
    """Return the name that the file gives to a free dimension, "" where it gives none."""
    if not isinstance(size, str) or _INVENTED.fullmatch(size):
        return ""
    return size
