"""The shapes of a model's outputs as they come, where its file declares others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from inferd.tensors import Array
from inferd_engines.engine import Signature, Tensor

from inferd_server.models.batchable import shape_of


def as_seen(
    signature: Signature, outputs: Mapping[str, Array], *, batched: bool
) -> tuple[Signature, Sequence[str]]:
    """Return a signature that does not contradict a run, and a sentence for each contradiction.

    A size that is another one than declared is free.

    Args:
        signature: of the model.
        outputs: of a run of one row, or of one request, by name; an output may be missing.
        batched: the first dimension counts rows.
    """
    pairs = [(tensor, _described(tensor, outputs, batched)) for tensor in signature.outputs]
    differing = [
        f"output {tensor.name!r} is declared as {shape_of(tensor.shape)} and came as "
        f"{list(outputs[tensor.name].shape)}; clients are told {shape_of(seen.shape)}"
        for tensor, seen in pairs
        # Without any dimension, the file may tell nothing at all.
        if seen.shape != tensor.shape and tensor.shape
    ]
    return replace(signature, outputs=tuple(seen for _, seen in pairs)), differing


def _described(tensor: Tensor, outputs: Mapping[str, Array], batched: bool) -> Tensor:
    if tensor.name not in outputs:
        return tensor
    came = outputs[tensor.name].shape
    if len(came) != len(tensor.shape):
        return replace(tensor, shape=(None,) * len(came), axes=("",) * len(came))
    shape = tuple(
        size if size == there or (batched and not axis) else None
        for axis, (size, there) in enumerate(zip(tensor.shape, came, strict=True))
    )
    return replace(tensor, shape=shape)
