"""The yardstick: a plan run in a loop on buffers that never change, and nothing around it.

Written without the engine's own parts, so that what these cost is seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from inferd_engines.engine import Array, Tensor
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of
from inferd_engines.tensorrt.shim import required

from benchmarks.gpu.subject import Subject

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name."""


class BarePlan:
    """A plan that was read once, for several loops. Loops are closed before it is let go."""

    def __init__(self, subject: Subject) -> None:
        """Read it.

        Raises:
            TensorRTError: it cannot be read.
        """
        trt = subject.gpu.library.module
        self.recording = Recording()
        listeners_of(trt).listen(self.recording)
        self._runtime = self.must(trt.Runtime(logger_of(trt)), "make a runtime")
        self.engine = self.must(
            self._runtime.deserialize_cuda_engine(subject.plan), "read the plan"
        )

    def must(self, value: Any, what: str) -> Any:
        """Return what a call of TensorRT returned, unless that says that it failed."""
        return required(value, what, self.recording)


class Loop:
    """One stream, one context for one bucket, and a fixed buffer for every tensor."""

    def __init__(self, subject: Subject, plan: BarePlan, bucket: int) -> None:
        """Take everything, and put random numbers into the inputs.

        Raises:
            TensorRTError: TensorRT refused, a shape outside the plan's for example.
        """
        self._cuda = cuda = subject.gpu.device.cuda
        self._plan = plan
        self.stream = cuda.Stream(NON_BLOCKING)
        self._done = cuda.Event(cuda.event_flags.DISABLE_TIMING)
        self._taken: list[Any] = []
        self._context = self._make_context(subject, bucket)
        inputs = subject.inputs(bucket, np.random.default_rng(0))
        for name, array in inputs.items():
            taken = self._context.set_input_shape(name, array.shape)
            plan.must(taken, f"take input {name!r} of shape {array.shape}")
        self._inputs = [self._buffer(one) for one in subject.signature.inputs]
        self._outputs = [self._buffer(one) for one in subject.signature.outputs]
        for (host, _), tensor in zip(self._inputs, subject.signature.inputs, strict=True):
            host[...] = inputs[tensor.name].reshape(-1).view(np.uint8)

    def copy_in(self) -> None:
        """Enqueue the copies of all inputs to the device."""
        for host, address in self._inputs:
            self._cuda.memcpy_htod_async(address, host, self.stream)

    def execute(self) -> None:
        """Enqueue the run."""
        self._plan.must(self._context.execute_async_v3(self.stream.handle), "run the plan")

    def copy_out(self) -> None:
        """Enqueue the copies of all outputs from the device."""
        for host, address in self._outputs:
            self._cuda.memcpy_dtoh_async(host, address, self.stream)

    def begin(self) -> Loop:
        """Start one run with its copies, and return the loop itself."""
        self.copy_in()
        self.execute()
        self.copy_out()
        self._done.record(self.stream)
        return self

    def finish(self) -> None:
        """Wait for the run that was begun last."""
        self._done.synchronize()

    def close(self) -> None:
        """Give the device memory back, after the context."""
        self._context = None
        for taken in self._taken:
            taken.free()
        self._taken.clear()

    def _make_context(self, subject: Subject, bucket: int) -> Any:
        trt, engine, profile = subject.gpu.library.module, self._plan.engine, subject.buckets
        index = profile.index(bucket)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._plan.must(engine.create_execution_context(strategy), "make a context")
        chosen = context.set_optimization_profile_async(index, self.stream.handle)
        self._plan.must(chosen, f"choose profile {index}")
        self.stream.synchronize()
        nbytes = int(engine.get_device_memory_size_for_profile_v2(index))
        if nbytes:
            context.set_device_memory(int(self._take(nbytes)), nbytes)
        return context

    def _buffer(self, tensor: Tensor) -> tuple[Array, int]:
        """Return pinned and device memory of one tensor, and tell the context."""
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        nbytes = max(1, tensor.dtype.itemsize * int(np.prod(shape)))
        if min(shape, default=0) < 0:
            raise TensorRTError(f"the shape of {tensor.name!r} depends on the data")
        address = int(self._take(nbytes))
        taken = self._context.set_tensor_address(tensor.name, address)
        self._plan.must(taken, f"take an address for {tensor.name!r}")
        host: Array = self._cuda.pagelocked_empty(nbytes, np.uint8)
        return host, address

    def _take(self, nbytes: int) -> Any:
        self._taken.append(self._cuda.mem_alloc(nbytes))
        return self._taken[-1]


def capture_run(loop: Loop, subject: Subject) -> int | None:
    """Capture the run alone as a graph that can be launched, without the copies; None if it fails.

    Raises:
        pycuda.driver.Error: the run before the capture failed.
    """
    libcuda, cuda = subject.gpu.device.libcuda, subject.gpu.device.cuda
    # TensorRT does what it deferred in the first run after a change of shapes.
    loop.copy_in()
    loop.execute()
    loop.stream.synchronize()
    stream = int(loop.stream.handle)
    try:
        libcuda.begin_capture(stream)
        try:
            loop.execute()
        finally:
            graph = libcuda.end_capture(stream)
        try:
            return libcuda.instantiate(graph)
        finally:
            libcuda.destroy(graph)
    except (TensorRTError, cuda.Error):
        return None
