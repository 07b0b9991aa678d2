"""A plan in memory, and the shapes that its tensors take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.recording import Recording, listeners_of
from inferd_engines.tensorrt.shim import required

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plan in memory, and what every lane needs to know of it."""

    trt: Any
    engine: Any
    signature: Signature
    buckets: tuple[int, ...]
    """Rows of each profile, rising; empty for a model without a batch dimension."""
    largest: tuple[Shapes, ...]
    """Of every tensor, for each profile; without the outputs that depend on the data."""
    recording: Recording
    weights: int
    """Bytes on the device, about: the size of the plan."""
    make_context: Callable[[], Any]
    """Makes an execution context whose memory for activations is ours."""
    runtime_cache: Callable[[], bytes] = bytes
    """Returns what was compiled on this GPU so far; empty where plans are compiled when built."""

    @property
    def sized(self) -> tuple[Tensor, ...]:
        """Inputs and outputs whose largest shapes are known."""
        every = (*self.signature.inputs, *self.signature.outputs)
        return tuple(tensor for tensor in every if tensor.name in self.largest[-1])

    @property
    def dependent(self) -> tuple[Tensor, ...]:
        """Outputs whose shapes depend on the data: only a run tells them."""
        outputs = self.signature.outputs
        return tuple(tensor for tensor in outputs if tensor.name not in self.largest[-1])

    def listen(self) -> int:
        """Record what TensorRT says on this thread from now on; return the place of that."""
        listeners_of(self.trt).listen(self.recording)
        return self.recording.begin()


def shapes_on(
    context: Any, signature: Signature, inputs: Shapes, recording: Recording
) -> dict[str, tuple[int, ...]]:
    """Tell an execution context the shapes of its inputs; return those of all tensors.

    Outputs whose shapes depend on the data are not among them.

    Raises:
        TensorRTError: a shape is outside the profile.
    """
    found = dict(inputs)
    for name, shape in inputs.items():
        taken = context.set_input_shape(name, shape)
        required(taken, f"take input {name!r} of shape {shape}", recording)
    for tensor in signature.outputs:
        shape = tuple(int(size) for size in context.get_tensor_shape(tensor.name))
        if min(shape, default=0) >= 0:
            found[tensor.name] = shape
    return found
