"""Datatypes and shapes between TensorRT and numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from inferd_engines.engine import Tensor
from inferd_engines.onnx_graph import DTYPES as ONNX_DTYPES
from inferd_engines.onnx_graph import STRING, Graph, read_model
from inferd_engines.tensorrt.errors import PlanRefused, TensorRTError

DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}
"""By the name of TensorRT's DataType. FP8 and the 4-bit types do not cross the interface."""


def dtype_of(trt: Any, datatype: Any) -> np.dtype[Any]:
    """Return the numpy dtype of a TensorRT DataType.

    Raises:
        TensorRTError: none crosses the interface.
    """
    for name, dtype in DTYPES.items():
        if getattr(trt.DataType, name, None) == datatype:
            return dtype
    raise TensorRTError(f"tensors of {datatype} cannot be sent or received")


def tensor_of(trt: Any, name: str, datatype: Any, shape: tuple[int, ...]) -> Tensor:
    """Return an input or output as the engine interface describes it.

    Raises:
        TensorRTError: its datatype does not cross the interface.
    """
    sizes = tuple(None if size < 0 else int(size) for size in shape)
    return Tensor(name, dtype_of(trt, datatype), sizes)


def check_datatypes(content: bytes) -> None:
    """Refuse a model with inputs or outputs that TensorRT has no datatype for.

    It would build such a model with other datatypes than the model's.

    Args:
        content: of an ONNX file; what is none is for others to refuse.

    Raises:
        PlanRefused: it has one.
    """
    found = read_model(content)
    graph = Graph() if found is None else found.graph
    for side, tensors in (("input", graph.inputs), ("output", graph.results)):
        for tensor in tensors:
            dtype = ONNX_DTYPES.get(tensor.kind)
            if tensor.kind == STRING or (dtype is not None and dtype not in DTYPES.values()):
                raise PlanRefused(
                    f"{side} {tensor.name!r} is {dtype or 'text'}, which TensorRT does not have; "
                    "ONNX Runtime serves the model"
                )
