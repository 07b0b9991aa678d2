"""Device memory for inputs and outputs, and pinned memory of the same layout beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Tensor
from inferd_engines.tensorrt.arena import arrange
from inferd_engines.tensorrt.loaded import Loaded


class Buffers:
    """Of one lane: every tensor at its largest shape. Used by the thread that made it."""

    def __init__(self, cuda: Any, loaded: Loaded) -> None:
        """Take the memory.

        Args:
            cuda: the module pycuda.driver.
            loaded: the plan; its outputs that depend on the data have no place here.

        Raises:
            pycuda.driver.Error: there is not enough memory.
        """
        self._plan = arrange(loaded.sized, loaded.largest)
        self._device = cuda.mem_alloc(max(1, self._plan.nbytes))
        self._staging: Array = cuda.pagelocked_empty(max(1, self._plan.nbytes), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._plan.nbytes

    def address(self, tensor: Tensor) -> int:
        """Return where a tensor begins on the device."""
        return int(self._device) + self._plan.places[tensor.name].offset

    def staged(self, tensor: Tensor, shape: tuple[int, ...]) -> Array:
        """Return the pinned bytes of a tensor of this shape."""
        offset = self._plan.places[tensor.name].offset
        return self._staging[offset : offset + tensor.dtype.itemsize * math.prod(shape)]

    def stage(self, tensor: Tensor, array: Array, bucket: int) -> Array:
        """Write an input into pinned memory and return its bytes there.

        Args:
            tensor: the input.
            array: its elements.
            bucket: rows that it has to have, zeros where there is nothing; 0: as it is.
        """
        shape = (bucket, *array.shape[1:]) if bucket else array.shape
        target = self.view(tensor, shape)
        if bucket and len(array) < bucket:
            target[: len(array)] = array
            target[len(array) :] = 0
        else:
            target[...] = array
        return self.staged(tensor, shape)

    def view(self, tensor: Tensor, shape: tuple[int, ...]) -> Array:
        """Return a tensor in pinned memory."""
        return self.staged(tensor, shape).view(tensor.dtype).reshape(shape)

    def close(self) -> None:
        """Give it back."""
        self._device.free()
