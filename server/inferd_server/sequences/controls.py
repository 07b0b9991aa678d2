"""Control inputs, as Triton has them: they tell a model a request's place in its sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import EngineError, Signature, Tensor

from inferd_server.sequences.states import named
from inferd_server.sequences.steps import LARGEST_KEY, Step

ControlKind: TypeAlias = Literal["start", "ready", "end", "correlation_id"]


class Control(Protocol):
    """An input that the server fills."""

    @property
    def kind(self) -> ControlKind:
        """What it tells; "ready" is true of every request that runs."""

    @property
    def input(self) -> str:
        """Name of the input."""

    @property
    def false_true(self) -> Sequence[float]:
        """What stands for no and for yes; a correlation id stands for itself."""


def control_tensors(
    signature: Signature, controls: Sequence[Control], *, batched: bool
) -> Mapping[str, Tensor]:
    """Return the inputs that controls fill, by name.

    Raises:
        EngineError: there is no such input, or it cannot hold one number for each request.
    """
    found = {}
    for control in controls:
        tensor = named(signature.inputs, control.input, "input")
        sizes = tensor.shape[1:] if batched else tensor.shape
        allowed = "iu" if control.kind == "correlation_id" else "iufb"
        if tensor.dtype.kind not in allowed or any(size not in {1, None} for size in sizes):
            raise EngineError(
                f"sequence: input {control.input!r} is {tensor.dtype} {list(tensor.shape)} and "
                f"cannot be the control {control.kind!r}: one number for each request was expected"
            )
        found[control.input] = tensor
    return found


def largest_key(controls: Sequence[Control], tensors: Mapping[str, Tensor]) -> int:
    """Return the largest sequence id that a model can be told."""
    dtypes = [tensors[c.input].dtype for c in controls if c.kind == "correlation_id"]
    # Of 64 bits, a signed one is the same bits.
    narrow = [int(np.iinfo(dtype).max) for dtype in dtypes if dtype.itemsize < 8]
    return min(narrow, default=LARGEST_KEY)


def control_array(control: Control, tensor: Tensor, steps: Sequence[Step]) -> Array:
    """Return what an input is filled with for these steps: [steps, 1, ...], or a scalar."""
    if control.kind == "correlation_id":
        keys = np.array([step.key for step in steps], np.uint64)
        values = keys.view(np.int64) if tensor.dtype.kind == "i" else keys
    else:
        values = np.array([control.false_true[int(_holds(control, step))] for step in steps])
    rank = len(tensor.shape)
    return values.astype(tensor.dtype).reshape((len(steps), *[1] * (rank - 1)) if rank else ())


def _holds(control: Control, step: Step) -> bool:
    return {"start": step.starts, "end": step.ends}.get(control.kind, True)
