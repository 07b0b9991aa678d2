"""A lane: one stream with its own memory and contexts, so that two lanes overlap.

Copies to the device, the run and copies back follow each other on the lane's stream. While one
lane runs, another one copies: that is all there is to double buffering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Tensor
from inferd_engines.tensorrt.buffers import Buffers, Copy, View
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.loaded import Loaded, Shapes, shapes_on
from inferd_engines.tensorrt.outputs import DependentOutput, allocator_of
from inferd_engines.tensorrt.pinned import Registered
from inferd_engines.tensorrt.shim import required

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name: never waits for the default stream."""
KEPT = 256
"""Forms that are kept: more are those of a model that is sent ever new sizes."""
POISON = 0xA5


@dataclass(frozen=True, slots=True)
class Form:
    """One shape of every tensor in the memory of one lane."""

    profile: int
    shapes: Shapes
    """Of the inputs, padding included."""
    inputs: tuple[tuple[str, View], ...]
    outputs: tuple[tuple[Tensor, View | None], ...]
    """None for one that depends on the data."""
    there: tuple[Copy, ...]
    """Copies to the device of inputs that all are in pinned memory."""
    back: tuple[Copy, ...]


class Lane:
    """Stream, staging, device memory and contexts. Used by the thread that made it."""

    def __init__(self, device: Device, loaded: Loaded, registered: Registered, block: bool) -> None:
        """Take everything that runs will need but for outputs that depend on the data.

        Args:
            device: whose context is current.
            loaded: the plan.
            registered: memory that inputs are read from where they are.
            block: True to sleep while the GPU runs, False to spin on a core.

        Raises:
            TensorRTError: a context cannot be made.
            pycuda.driver.Error: there is not enough memory.
        """
        cuda = device.cuda
        self._cuda = cuda
        self._loaded = loaded
        self._registered = registered
        self.stream = cuda.Stream(NON_BLOCKING)
        self.handle = int(self.stream.handle)
        flags = cuda.event_flags
        self.done = cuda.Event(flags.DISABLE_TIMING | (flags.BLOCKING_SYNC if block else 0))
        self._buffers = Buffers(cuda, loaded.sized, loaded.largest)
        self._dependent = {
            tensor.name: DependentOutput(cuda, tensor, loaded.recording)
            for tensor in loaded.dependent
        }
        # Kept here, because TensorRT holds no reference that Python knows of.
        self._allocator = allocator_of(loaded.trt, self._dependent) if self._dependent else None
        self._contexts: list[Any] = []
        self._told: list[Shapes | None] = []
        """What each context was told last of the shapes of its inputs."""
        self._forms: dict[tuple[int, tuple[tuple[int, ...], ...]], Form] = {}
        self._scratch: Any = None
        self._scratch_bytes = 0
        try:
            for profile in range(len(loaded.largest)):
                self._contexts.append(self._context(profile))
                self._told.append(None)
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

    def form(self, profile: int, shapes: Sequence[tuple[int, ...]]) -> Form:
        """Return where everything lies for inputs of these shapes, and tell TensorRT of them.

        Args:
            profile: index of the bucket.
            shapes: of the inputs in their order, padding included.

        Raises:
            TensorRTError: TensorRT refused, a shape outside the profile's for example.
        """
        key = (profile, tuple(shapes))
        found = self._forms.get(key)
        if found is None:
            found = self._make_form(profile, shapes)
            if len(self._forms) >= KEPT:
                self._forms.clear()
            self._forms[key] = found
        elif self._told[profile] is not found.shapes:
            self._tell(profile, found.shapes)
        return found

    def put(self, form: Form, inputs: Mapping[str, Array], bucket: int) -> Sequence[Copy]:
        """Bring inputs to where the GPU may read them; return the copies that are to be made.

        From where they are, if the GPU may read that and nothing has to be added: such inputs must
        not change before the stream has passed. All others are written into pinned memory, rows up
        to the bucket's as zeros; if all were, the copies are the form's own.

        Args:
            form: of the run.
            inputs: of the signature's dtypes.
            bucket: rows with padding; 0 for a plan without a batch dimension.
        """
        holds, in_place = self._registered.holds, {}
        for name, view in form.inputs:
            array = inputs[name]
            if bucket and len(array) < bucket:
                view.array[: len(array)] = array
                view.array[len(array) :] = 0
            elif holds(array):
                in_place[name] = Copy(view.address, array.reshape(-1).view(np.uint8))
            else:
                view.array[...] = array
        if not in_place:
            return form.there
        return [in_place.get(name) or Copy(view.address, view.raw) for name, view in form.inputs]

    def copy_in(self, copies: Sequence[Copy]) -> None:
        """Copy to the device, later, on the stream."""
        for address, source in copies:
            self._cuda.memcpy_htod_async(address, source, self.stream)

    def enqueue(self, form: Form) -> None:
        """Run and copy out: all of it later, on the stream.

        Raises:
            TensorRTError: TensorRT refused.
        """
        for output in self._dependent.values():
            output.begin()
        ran = self._contexts[form.profile].execute_async_v3(self.handle)
        required(ran, "run the plan", self._loaded.recording)
        for address, target in form.back:
            self._cuda.memcpy_dtoh_async(target, address, self.stream)
        for output in self._dependent.values():
            output.copy_out(self.stream)

    def capturable(self, profile: int) -> bool:
        """True unless TensorRT knows that a run cannot be captured."""
        ask = getattr(self._contexts[profile], "is_stream_capturable", None)
        return ask is None or bool(ask(self.handle))

    def poison(self, form: Form) -> None:
        """Overwrite the outputs, later on the device and now beside it."""
        for _, view in form.outputs:
            if view is not None:
                nbytes = view.raw.nbytes
                view.raw[...] = POISON
                if nbytes:
                    self._cuda.memset_d8_async(view.address, POISON, nbytes, self.stream)

    def dependent(self, tensor: Tensor) -> Array:
        """Return an output that depends on the data, in pinned memory until the lane's next run."""
        return self._dependent[tensor.name].view()

    def close(self) -> None:
        """Give everything back, in TensorRT's order: contexts first.

        Nothing may be reading other people's memory after that.
        """
        self.stream.synchronize()
        self._contexts.clear()
        self._forms.clear()
        if self._scratch is not None:
            self._scratch.free()
            self._scratch = None
        for output in self._dependent.values():
            output.close()
        self._buffers.close()
        # Now, and not whenever and on whatever thread Python collects them.
        del self.stream, self.done

    def _make_form(self, profile: int, given: Sequence[tuple[int, ...]]) -> Form:
        signature, buffers = self._loaded.signature, self._buffers
        names = [tensor.name for tensor in signature.inputs]
        shapes: Shapes = dict(zip(names, given, strict=True))
        every = self._tell(profile, shapes)
        inputs = tuple(
            (tensor.name, buffers.view(profile, tensor, every[tensor.name]))
            for tensor in signature.inputs
        )
        outputs = tuple(
            (
                tensor,
                None
                if tensor.name in self._dependent
                else buffers.view(profile, tensor, every[tensor.name]),
            )
            for tensor in signature.outputs
        )
        there = buffers.copies([view for _, view in inputs])
        back = buffers.copies([view for _, view in outputs if view is not None])
        return Form(profile, shapes, inputs, outputs, tuple(there), tuple(back))

    def _tell(self, profile: int, inputs: Shapes) -> Shapes:
        """Tell a profile's context the shapes of its inputs; return those of all tensors."""
        loaded = self._loaded
        self._told[profile] = None
        found = shapes_on(self._contexts[profile], loaded.signature, inputs, loaded.recording)
        self._told[profile] = inputs
        return found

    def _context(self, profile: int) -> Any:
        """Make a context of its own for each profile: switching costs an update on the next run."""
        loaded, recording = self._loaded, self._loaded.recording
        context = required(loaded.make_context(), "make a context", recording)
        if profile:
            chosen = context.set_optimization_profile_async(profile, self.handle)
            required(chosen, f"choose profile {profile}", recording)
            self.stream.synchronize()
        for tensor in loaded.sized:
            address = self._buffers.address(profile, tensor.name)
            taken = context.set_tensor_address(tensor.name, address)
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
