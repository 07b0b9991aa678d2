"""The choice of models that may batch: their first dimension stands for independent rows.

A model whose file says so by its shapes alone may still mix rows (a mean over the first dimension,
say): batching it would answer wrongly and nobody would notice. So its rows are tried before
they share a run, and the graph is read for what a trial cannot show.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from inferd_engines.batch_axis import Mixing, MixingNode
from inferd_engines.engine import EngineError, Signature, Tensor
from inferd_engines.onnx_values import ModelFacts

from inferd_server.models.row_verdict import Finding, RowVerdict

log = logging.getLogger(__name__)

Trial = Callable[[int], RowVerdict]
"""Tries rows in batches of at most so many."""


@dataclass(frozen=True, slots=True)
class Batching:
    """The batch limit of a model (0: none), and how it was found."""

    max_batch_size: int
    reason: str
    fitting: int = 0
    """Rows whose runs keep to the budget in bytes; 0: not known."""
    proven: bool = True
    """False where batches are asked for and nobody knows whether rows are independent."""


def row_bytes(signature: Signature) -> int:
    """Return the least that one request's inputs can take; text counts nothing."""
    return sum(
        math.prod(1 if size is None else size for size in tensor.shape) * tensor.dtype.itemsize
        for tensor in signature.inputs
        if tensor.dtype != object
    )


def find_batching(
    signature: Signature, asked: int | None, default: int, facts: ModelFacts, trial: Trial
) -> Batching:
    """Decide whether, and up to which size, requests of a model share a run.

    Args:
        signature: of the model.
        asked: the model's own setting; 0: no batch dimension; None: find out.
        default: the limit when the model says nothing.
        facts: from the model's file.
        trial: of its rows.

    Raises:
        EngineError: the model asks for batches, and cannot have them.
    """
    if asked == 0:
        return Batching(0, "max_batch_size is 0 in model.yaml")
    fixed = fixed_input(signature, facts.producer)
    if fixed and asked:
        raise EngineError(f"max_batch_size is {asked}, and {fixed}")
    if fixed:
        return Batching(0, fixed)
    proven = next((node for node in facts.mixing if node.mixing is Mixing.PROVEN), None)
    if proven is None:
        verdict = trial(asked or default)
    else:
        verdict = RowVerdict(
            Finding.MIXES, f"rows depend on the other rows of their batch: {proven}"
        )
    return decide(verdict, facts, asked, default)


def decide(verdict: RowVerdict, facts: ModelFacts, asked: int | None, default: int) -> Batching:
    """Weigh what a trial found against what the graph says and the operator asks for.

    Raises:
        EngineError: batches are asked for, and rows are known to be mixed.
    """
    doubt = doubtful(verdict, facts)
    if verdict.finding is Finding.INDEPENDENT and doubt is None:
        return Batching(asked or default, verdict.reason, verdict.fitting)
    reason = verdict.reason
    if doubt is not None:
        reason = f"{reason}, but {doubt}" if independent(verdict) else f"{reason}; {doubt}"
    if verdict.finding is Finding.MIXES:
        if asked:
            raise EngineError(f"max_batch_size is {asked}, and {reason}")
        return Batching(0, reason, verdict.fitting)
    if not asked:
        return Batching(0, reason + hint_of(verdict, default), verdict.fitting)
    text = f"max_batch_size is {asked} in model.yaml, not proven: {reason}"
    return Batching(asked, text, verdict.fitting, proven=False)


def hint_of(verdict: RowVerdict, default: int) -> str:
    """Return the lines of model.yaml that help where nothing could be told."""
    hint = f"; if rows are independent all the same, set max_batch_size: {default} in model.yaml"
    if verdict.finding is Finding.UNTRIED:
        hint += ", or name rows that the model takes: warm_up: rows.npz (docs/models.md)"
    return hint


def independent(verdict: RowVerdict) -> bool:
    """True if the trial found no mixing."""
    return verdict.finding is Finding.INDEPENDENT


def doubtful(verdict: RowVerdict, facts: ModelFacts) -> MixingNode | None:
    """Return the node that speaks against independent rows, in spite of the trial if it has to.

    The trial is the judge where it could be held with numbers that have a fraction: any of them
    moves a mean. Of whole numbers, it may not have met the one that counts.
    """
    if not independent(verdict):
        return next(iter(facts.mixing), None)
    found = (one for one in facts.mixing if one.mixing is Mixing.LIKELY and one.whole)
    return next(found, None)


def batched_signature(signature: Signature) -> Signature:
    """Return a signature whose outputs begin with the free dimension that they have been seen with.

    Some exporters declare one row where there is one for each row of the inputs.
    """
    outputs = tuple(
        replace(tensor, shape=(None, *tensor.shape[1:])) if tensor.shape else tensor
        for tensor in signature.outputs
    )
    return replace(signature, outputs=outputs)


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
