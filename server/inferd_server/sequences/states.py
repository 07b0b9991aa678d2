"""The states of a model: which of its inputs and outputs they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import EngineError, Signature, Tensor


class StatePair(Protocol):
    """An output that is an input of the sequence's next request."""

    @property
    def input(self) -> str:
        """Name of the input."""

    @property
    def output(self) -> str:
        """Name of the output."""


def public(
    signature: Signature, pairs: Sequence[StatePair], filled: Collection[str] = ()
) -> Signature:
    """Return a signature without its states, and without the inputs that the server fills."""
    inputs = {pair.input for pair in pairs}.union(filled)
    outputs = {pair.output for pair in pairs}
    return Signature(
        tuple(tensor for tensor in signature.inputs if tensor.name not in inputs),
        tuple(tensor for tensor in signature.outputs if tensor.name not in outputs),
    )


def first_state(signature: Signature, pair: StatePair, batched: bool) -> Array:
    """Return what the first request of a sequence gets: zeros, and free dimensions of 0.

    Raises:
        EngineError: there is no such input or output, or they are of different kinds.
    """
    given = named(signature.inputs, pair.input, "input")
    left = named(signature.outputs, pair.output, "output")
    if (given.dtype, len(given.shape)) != (left.dtype, len(left.shape)):
        raise EngineError(
            f"sequence: output {pair.output!r} is {left.dtype} {list(left.shape)} and cannot be "
            f"input {pair.input!r}, {given.dtype} {list(given.shape)}"
        )
    sizes = [size or 0 for size in given.shape]
    return np.zeros([1, *sizes[1:]] if batched else sizes, given.dtype)


def named(tensors: Sequence[Tensor], name: str, kind: str) -> Tensor:
    """Return the tensor of a name.

    Raises:
        EngineError: there is none.
    """
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    known = ", ".join(tensor.name for tensor in tensors)
    raise EngineError(f"sequence: there is no {kind} {name!r}; there are {known}")
