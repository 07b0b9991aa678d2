"""Why a model's requests cannot share runs by its shapes, and the line of an export that helps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from inferd_engines.engine import Signature, Tensor

SHOWN = 4
"""Inputs that a line of an export names; the others are like them."""
DOCS = "docs/exporting.md"
COLUMN_TYPES: Mapping[str, str] = {
    "f4": "FloatTensorType", "f8": "DoubleTensorType", "i8": "Int64TensorType",
    "i4": "Int32TensorType", "b1": "BooleanTensorType", "O": "StringTensorType",
}  # fmt: skip
"""What scikit-learn's converter calls a type, by numpy's code of it."""
TENSOR_SPECS: Mapping[str, str] = {"f4": "float32", "f8": "float64", "i8": "int64", "i4": "int32"}


def shape_of(shape: Sequence[int | None]) -> str:
    """Write a shape with -1 for a free dimension."""
    return str([-1 if size is None else size for size in shape])


def fixed_input(signature: Signature, producer: str = "") -> str:
    """Say why the inputs cannot be those of several rows, and what to do; "" if they can.

    Args:
        signature: of the model.
        producer: what wrote the file, as it calls itself.
    """
    if not signature.inputs:
        return "the model has no inputs"
    for tensor in signature.inputs:
        if not tensor.shape or tensor.shape[0] is not None:
            said = f"input {tensor.name!r} has shape {shape_of(tensor.shape)}"
            cure = _cure(tensor, signature, producer)
            return f"{said}, which begins with no free dimension: {cure}"
    return ""


def _cure(tensor: Tensor, signature: Signature, producer: str) -> str:
    if not tensor.shape:
        return (
            "one value is for all rows of a run; let the model take one for each row, of shape "
            "[-1, 1], or make it a constant of the model"
        )
    if None in tensor.shape:
        return batch_first(tensor.name, tensor.shape, _batch_axis(tensor, signature))
    write = EXPORTS.get(producer.lower())
    freed = shape_of((None, *tensor.shape[1:]))
    line = f"with {write(signature)}" if write else f"with shape {freed}"
    return f"export it {line} ({DOCS})"


def _batch_axis(tensor: Tensor, signature: Signature) -> int:
    """Return the free dimension that has the name of another input's first one, or the first."""
    named = {other.axes[0] for other in signature.inputs if other.axes and other.axes[0]}
    free = [axis for axis, size in enumerate(tensor.shape) if size is None]
    return next((a for a in free if tensor.axes and tensor.axes[a] in named), free[0])


def batch_first(name: str, shape: Sequence[int | None], axis: int) -> str:
    """Say how a tensor gets its batch to the front.

    Args:
        name: of the tensor.
        shape: of it.
        axis: the dimension that is the batch.
    """
    others = [size for place, size in enumerate(shape) if place != axis]
    return (
        f"if its dimension {axis} is the batch, let it be the first one, "
        f"{shape_of((None, *others))} (PyTorch: {name}.movedim({axis}, 0))"
    )


def missing_rows(name: str, shape: Sequence[int], rows: int, axis: int | None = None) -> str:
    """Say that an output has not one row for each row of the inputs, and what to do.

    Args:
        name: of the output.
        shape: that it came in.
        rows: of the inputs.
        axis: the dimension that is the batch; None: not known.
    """
    said = f"output {name!r} has shape {list(shape)} for {rows} row" + "s" * (rows > 1)
    if axis is None and rows > 1:
        axis = next((place for place, size in enumerate(shape) if size == rows), None)
    if axis is not None:
        return f"{said}: {batch_first(name, shape, axis)}"
    return (
        f"{said}: let it have one row for each (PyTorch: {name}.expand), or leave it out of the "
        "exported model"
    )


def _torch(signature: Signature) -> str:
    """Both exporters' arguments. Source: `torch.onnx.export`."""
    axes = {tensor.name: bool(tensor.shape) for tensor in signature.inputs}
    free = {name: '{0: Dim("batch")}' if has else "None" for name, has in axes.items()}
    older = [name for name, has in axes.items() if has]
    older += [tensor.name for tensor in signature.outputs if tensor.shape]
    named = _pairs(dict.fromkeys(older, '{0: "batch"}'))
    return f"dynamic_shapes={{{_pairs(free)}}}, or with dynamo=False dynamic_axes={{{named}}}"


def _sklearn(signature: Signature) -> str:
    types = []
    for tensor in signature.inputs[:SHOWN]:
        kind = COLUMN_TYPES.get(_code(tensor), "FloatTensorType")
        sizes = ["None", *(str(size) for size in tensor.shape[1:])]
        types.append(f"({json.dumps(tensor.name)}, {kind}([{', '.join(sizes)}]))")
    return f"initial_types=[{', '.join(types)}{_more(signature.inputs)}]"


def _tensorflow(signature: Signature) -> str:
    specs = []
    for tensor in signature.inputs[:SHOWN]:
        sizes = ", ".join(["None", *(str(size) for size in tensor.shape[1:])])
        kind = TENSOR_SPECS.get(_code(tensor), "float32")
        specs.append(f"tf.TensorSpec([{sizes}], tf.{kind}, name={json.dumps(tensor.name)})")
    return f"input_signature=[{', '.join(specs)}{_more(signature.inputs)}]"


EXPORTS: Mapping[str, Callable[[Signature], str]] = {
    "pytorch": _torch,
    "skl2onnx": _sklearn,
    "onnxmltools": _sklearn,
    "tf2onnx": _tensorflow,
}
"""How each of them is told that the first dimension is free, by what files call them."""


def _code(tensor: Tensor) -> str:
    return "O" if tensor.dtype == np.object_ else tensor.dtype.str[1:]


def _pairs(items: Mapping[str, str]) -> str:
    shown = [f"{json.dumps(name)}: {value}" for name, value in list(items.items())[:SHOWN]]
    return ", ".join(shown) + _more(tuple(items))


def _more(items: Sequence[object]) -> str:
    return ", ..." if len(items) > SHOWN else ""
