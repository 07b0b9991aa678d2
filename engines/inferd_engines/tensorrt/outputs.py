"""Outputs whose shapes depend on the data: TensorRT asks for their memory while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Tensor
from inferd_engines.tensorrt.buffers import ALIGNMENT
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.recording import Recording


class DependentOutput:
    """Memory of one output of one lane, on the device and pinned. It is kept, and only grows."""

    def __init__(self, cuda: Any, tensor: Tensor, recording: Recording) -> None:
        """Take nothing yet.

        Args:
            cuda: the module pycuda.driver.
            tensor: the output.
            recording: of the plan, told when there is no memory.
        """
        self._cuda = cuda
        self._tensor = tensor
        self._recording = recording
        self._device: Any = None
        self._staging: Array = np.empty(0, np.uint8)
        self._shape: tuple[int, ...] | None = None
        self.nbytes = 0
        """Bytes on the device."""

    def begin(self) -> None:
        """Forget the shape of the run before."""
        self._shape = None

    def reserve(self, nbytes: int, alignment: int) -> int:
        """Return the address of so many bytes on the device; 0 if they cannot be had.

        Called by TensorRT, which loses exceptions.
        """
        try:
            if alignment > ALIGNMENT:
                raise TensorRTError(f"memory aligned to {alignment} bytes was asked for")
            # Nothing has an address, too.
            if self._device is None or nbytes > self.nbytes:
                self._grow(max(1, nbytes))
        except (self._cuda.Error, TensorRTError) as error:
            self._recording.failed(0, f"no memory for output {self._tensor.name!r}: {error}")
            return 0
        return int(self._device)

    def told(self, shape: Sequence[int]) -> None:
        """Take the shape of this run, which TensorRT tells before it returns from it."""
        self._shape = tuple(int(size) for size in shape)

    def copy_out(self, stream: Any) -> None:
        """Copy what the run writes to pinned memory, later, on the stream.

        Raises:
            TensorRTError: TensorRT did not tell the shape.
            pycuda.driver.Error: there is no pinned memory for it.
        """
        if self._shape is None:
            raise TensorRTError(f"TensorRT did not tell the shape of output {self._tensor.name!r}")
        nbytes = self._tensor.dtype.itemsize * math.prod(self._shape)
        if nbytes > len(self._staging):
            self._staging = self._cuda.pagelocked_empty(grown(len(self._staging), nbytes), np.uint8)
        if nbytes:
            self._cuda.memcpy_dtoh_async(self._staging[:nbytes], int(self._device), stream)

    def view(self) -> Array:
        """Return the output of the last run in pinned memory; overwritten by the next one."""
        shape = self._shape or ()
        nbytes = self._tensor.dtype.itemsize * math.prod(shape)
        return self._staging[:nbytes].view(self._tensor.dtype).reshape(shape)

    def close(self) -> None:
        """Give it back."""
        self._staging = np.empty(0, np.uint8)
        if self._device is not None:
            self._device.free()
        self._device, self.nbytes = None, 0

    def _grow(self, nbytes: int) -> None:
        """Take a larger block in place of the one there is, whose last run is over."""
        wanted = grown(self.nbytes, nbytes)
        if self._device is not None:
            self._device.free()
            self._device, self.nbytes = None, 0
        self._device = self._cuda.mem_alloc(wanted)
        self.nbytes = wanted


def grown(held: int, wanted: int) -> int:
    """Return the bytes to take where `wanted` do not fit into `held`: seldom, and not too many."""
    return max(wanted, held + held // 2)


def allocator_of(trt: Any, outputs: Mapping[str, DependentOutput]) -> Any:
    """Return an output allocator for TensorRT that asks outputs by their names.

    Args:
        trt: the module, whose own class has to be the base.
        outputs: of one lane.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        # 8.x calls this one, later versions the one below where there is one.
        def reallocate_output(self, name: str, _memory: int, size: int, alignment: int) -> int:
            return outputs[name].reserve(size, alignment)

        def reallocate_output_async(
            self, name: str, _memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return outputs[name].reserve(size, alignment)

        def notify_shape(self, name: str, shape: Sequence[int]) -> None:
            outputs[name].told(shape)

    return Allocator()
