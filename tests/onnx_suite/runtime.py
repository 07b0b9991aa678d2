"""What bare ONNX Runtime makes of a case, by which the server is judged."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from onnx import TensorProto
from onnxruntime import InferenceSession, OrtValue, SessionOptions

from .cases import BFLOAT16, Array, Case

SILENT = 4
CARRIED = frozenset(
    {"bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}
    | {"float16", "float", "double", "bfloat16", "string"}
)
"""Element types that the protocol has, in ONNX Runtime's words."""


class Fate(Enum):
    """What a server can make of a model."""

    SERVED = "served"
    REFUSED = "refused for its type"
    NOT_RUN = "not run by ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the server is to do with a case."""

    fate: Fate
    outputs: Mapping[str, Array] = field(default_factory=dict)
    """Those that the protocol can carry."""
    reason: str = ""


def expected(case: Case) -> Expected:
    """Run a case on the processor."""
    options = SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = 1
    try:
        session = InferenceSession(case.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return Expected(Fate.NOT_RUN, reason=str(error))
    types = [arg.type for arg in session.get_inputs()]
    names = [arg.name for arg in session.get_outputs() if is_carried(arg.type)]
    if not names or not all(map(is_carried, types)):
        return Expected(Fate.REFUSED)
    try:
        return Expected(Fate.SERVED, run(session, case.inputs, names))
    except Exception as error:
        return Expected(Fate.NOT_RUN, reason=str(error))


def is_carried(kind: str) -> bool:
    """Tell whether the protocol has a datatype for a type such as "tensor(float)"."""
    return kind.removeprefix("tensor(").removesuffix(")") in CARRIED


def run(
    session: InferenceSession, inputs: Mapping[str, Array], names: list[str]
) -> dict[str, Array]:
    """Run once; text comes as `str`."""
    kinds = {arg.name: arg.type for arg in session.get_outputs()}
    plain = [name for name in names if kinds[name] != "tensor(bfloat16)"]
    feed = {name: value_of(array) for name, array in inputs.items()}
    if len(plain) == len(names):
        return dict(zip(names, map(np.asarray, session.run(names, feed)), strict=True))
    held = {name: held_value(array) for name, array in inputs.items()}
    values = session.run_with_ort_values(names, held)
    return {
        name: bfloat16(value) if name not in plain else np.asarray(value.numpy())
        for name, value in zip(names, values, strict=True)
    }


def value_of(array: Array) -> Array | OrtValue:
    """Return an input as `InferenceSession.run` takes it."""
    return held_value(array) if array.dtype == BFLOAT16 else array


def held_value(array: Array) -> OrtValue:
    """Return an input as a value of ONNX Runtime's own."""
    if array.dtype == BFLOAT16:
        whole = np.ascontiguousarray(array).view(np.uint16).reshape(array.shape)
        return OrtValue.ortvalue_from_numpy_with_onnx_type(whole, TensorProto.BFLOAT16)
    return OrtValue.ortvalue_from_numpy(array)


def bfloat16(value: OrtValue) -> Array:
    """Return an output that numpy has no type for."""
    result = np.empty(value.shape(), BFLOAT16)
    ctypes.memmove(result.ctypes.data, value.data_ptr(), result.nbytes)
    return result
