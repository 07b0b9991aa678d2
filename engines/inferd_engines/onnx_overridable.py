"""Inputs of an ONNX model that have a value of their own: what ONNX calls overridable initializers.

Exporters that name all weights among the inputs mean nothing by it, so that only small values, and
few of them, are taken for inputs that somebody may want to give.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from inferd_engines.engine import EngineError, Tensor
from inferd_engines.onnx_graph import SMALL, Constant, read_model
from inferd_engines.onnx_signature import STRINGS, read_tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST = 8
"""Of a model; if there are more, they are weights."""


def overridable_inputs(session: InferenceSession, content: bytes) -> tuple[Tensor, ...]:
    """Return the inputs that a caller may leave out, with their values as `default`.

    Args:
        session: of the model.
        content: of its file; one that is no ONNX file tells no values.
    """
    named = session.get_overridable_initializers()
    if not 0 < len(named) <= MOST:
        return ()
    model = read_model(content)
    constants = {} if model is None else model.graph.constants
    found = []
    for arg in named:
        try:
            tensor = read_tensor(arg, "input", text=False)
        except EngineError:
            return ()
        default = value_of(tensor, constants.get(tensor.name))
        if default is None:
            return ()
        found.append(default)
    return tuple(found)


def value_of(tensor: Tensor, constant: Constant | None) -> Tensor | None:
    """Return an input with its value and the shape of that; None if it is large or not known."""
    if constant is None or tensor.dtype == STRINGS:
        return None
    size = math.prod(constant.shape)
    if not 0 < size <= SMALL or len(constant.values) != size:
        return None
    try:
        value = np.array(constant.values, tensor.dtype)
    except (OverflowError, ValueError):
        return None
    shape = constant.shape
    return replace(tensor, shape=shape, axes=("",) * len(shape), default=value.tobytes())
