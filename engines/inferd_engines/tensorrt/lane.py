"""A lane: one stream with its own memory and contexts, so that two lanes overlap.

Copies to the device, the run and copies back follow each other on the lane's stream. While one
lane runs, another one copies: that is all there is to double buffering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Tensor
from inferd_engines.tensorrt.buffers import Buffers
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.loaded import Loaded, Shapes, shapes_on
from inferd_engines.tensorrt.outputs import DependentOutput, allocator_of
from inferd_engines.tensorrt.pinned import Registered
from inferd_engines.tensorrt.shim import required

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name: never waits for the default stream."""


class Lane:
    """Stream, staging, device memory and contexts. Used by the thread that made it."""

    def __init__(self, device: Device, loaded: Loaded, registered: Registered) -> None:
        """Take everything that runs will need but for outputs that depend on the data.

        Args:
            device: whose context is current.
            loaded: the plan.
            registered: memory that inputs are read from where they are.

        Raises:
            TensorRTError: a context cannot be made.
            pycuda.driver.Error: there is not enough memory.
        """
        cuda = device.cuda
        self._cuda = cuda
        self._loaded = loaded
        self._registered = registered
        self.stream = cuda.Stream(NON_BLOCKING)
        self.done = cuda.Event(cuda.event_flags.DISABLE_TIMING)
        self._buffers = Buffers(cuda, loaded)
        self._dependent = {
            tensor.name: DependentOutput(cuda, tensor, loaded.recording)
            for tensor in loaded.dependent
        }
        # Kept here, because TensorRT holds no reference that Python knows of.
        self._allocator = allocator_of(loaded.trt, self._dependent) if self._dependent else None
        self._contexts: list[Any] = []
        self._scratch: Any = None
        self._scratch_bytes = 0
        try:
            for index in range(max(1, len(loaded.buckets))):
                self._contexts.append(self._context(index))
            self._share_scratch()
        except (cuda.Error, TensorRTError):
            # After a sticky error nothing can be given back.
            with suppress(cuda.Error):
                self.close()
            raise

    @property
    def nbytes(self) -> int:
        """Device memory of inputs, outputs and activations."""
        dependent = sum(output.nbytes for output in self._dependent.values())
        return self._buffers.nbytes + self._scratch_bytes + dependent

    @property
    def outputs(self) -> Sequence[Tensor]:
        """The outputs of the plan."""
        return self._loaded.signature.outputs

    def put(self, inputs: Mapping[str, Array], bucket: int) -> None:
        """Copy inputs to the device, later, on the stream; rows up to the bucket's are zeros.

        From where they are, if the GPU may read that and nothing has to be added: such inputs must
        not change before the stream has passed. All others go through pinned memory.

        Args:
            inputs: of the signature's dtypes.
            bucket: rows with padding; 0 for a plan without a batch dimension.
        """
        for tensor in self._loaded.signature.inputs:
            array = inputs[tensor.name]
            full = not bucket or len(array) == bucket
            if full and self._registered.holds(array):
                source = array.reshape(-1).view(np.uint8)
            else:
                source = self._buffers.stage(tensor, array, bucket)
            self._cuda.memcpy_htod_async(self._buffers.address(tensor), source, self.stream)

    def enqueue(self, profile: int, shapes: Shapes) -> None:
        """Run and copy out: all of it later, on the stream.

        Args:
            profile: index of the bucket.
            shapes: of every tensor, padding included.

        Raises:
            TensorRTError: TensorRT refused.
        """
        signature, buffers = self._loaded.signature, self._buffers
        for output in self._dependent.values():
            output.begin()
        ran = self._contexts[profile].execute_async_v3(self.stream.handle)
        required(ran, "run the plan", self._loaded.recording)
        for tensor in signature.outputs:
            dependent = self._dependent.get(tensor.name)
            if dependent is not None:
                dependent.copy_out(self.stream)
                continue
            self._cuda.memcpy_dtoh_async(
                buffers.staged(tensor, shapes[tensor.name]), buffers.address(tensor), self.stream
            )

    def shape(self, profile: int, inputs: Shapes) -> Shapes:
        """Tell a profile's context the shapes of its inputs; return those of all tensors.

        Raises:
            TensorRTError: see `shapes_on`.
        """
        loaded = self._loaded
        return shapes_on(self._contexts[profile], loaded.signature, inputs, loaded.recording)

    def output(self, tensor: Tensor, shapes: Shapes) -> Array:
        """Return an output in pinned memory; overwritten by the next run of this lane."""
        dependent = self._dependent.get(tensor.name)
        if dependent is not None:
            return dependent.view()
        return self._buffers.view(tensor, shapes[tensor.name])

    def close(self) -> None:
        """Give everything back, in TensorRT's order: contexts first.

        Nothing may be reading other people's memory after that.
        """
        self.stream.synchronize()
        self._contexts.clear()
        if self._scratch is not None:
            self._scratch.free()
        for output in self._dependent.values():
            output.close()
        self._buffers.close()

    def _context(self, profile: int) -> Any:
        """Make a context of its own for each profile: switching costs an update on the next run."""
        loaded, recording = self._loaded, self._loaded.recording
        strategy = loaded.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = required(
            loaded.engine.create_execution_context(strategy), "make a context", recording
        )
        if profile:
            chosen = context.set_optimization_profile_async(profile, self.stream.handle)
            required(chosen, f"choose profile {profile}", recording)
            self.stream.synchronize()
        for tensor in loaded.sized:
            taken = context.set_tensor_address(tensor.name, self._buffers.address(tensor))
            required(taken, f"take an address for {tensor.name!r}", recording)
        for name in self._dependent:
            taken = context.set_output_allocator(name, self._allocator)
            required(taken, f"take an allocator for {name!r}", recording)
        return context

    def _share_scratch(self) -> None:
        """Give all contexts one block for activations: they never run at the same time."""
        sizes = [
            int(self._loaded.engine.get_device_memory_size_for_profile_v2(profile))
            for profile in range(len(self._contexts))
        ]
        if not max(sizes):
            return
        self._scratch_bytes = max(sizes)
        self._scratch = self._cuda.mem_alloc(self._scratch_bytes)
        for context in self._contexts:
            context.set_device_memory(int(self._scratch), self._scratch_bytes)
