"""Device memory for inputs and outputs, and pinned memory of the same layout beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from inferd_engines.engine import Array, Tensor

ALIGNMENT = 256
"""Bytes that TensorRT wants addresses to be a multiple of."""
GAP = 4096
"""Bytes between two tensors that are rather copied than made a copy of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a block of memory: bytes from its beginning, at the largest shape."""

    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of tensors, one after the other, none beside the alignment."""

    places: Mapping[str, Place]
    nbytes: int


class View(NamedTuple):
    """A tensor of one shape: its address on the device, and its pinned memory."""

    address: int
    raw: Array
    """Of bytes."""
    array: Array


class Copy(NamedTuple):
    """Bytes that lie in the same order on the device and in pinned memory."""

    address: int
    raw: Array


class Buffers:
    """Every tensor of one lane, laid out anew for each profile in the same memory.

    Used by the thread that made it.
    """

    def __init__(
        self, cuda: Any, tensors: Sequence[Tensor], largest: Sequence[Mapping[str, Sequence[int]]]
    ) -> None:
        """Take the memory.

        Args:
            cuda: the module pycuda.driver.
            tensors: inputs, then outputs.
            largest: for each profile, the largest shape of each tensor.

        Raises:
            pycuda.driver.Error: there is not enough memory.
        """
        self._layouts = [arrange(tensors, shapes) for shapes in largest]
        self.nbytes = max(1, *(layout.nbytes for layout in self._layouts))
        """Bytes on the device."""
        self._device = cuda.mem_alloc(self.nbytes)
        self._base = int(self._device)
        self._staging: Array = cuda.pagelocked_empty(self.nbytes, np.uint8)

    def address(self, profile: int, name: str) -> int:
        """Return where a tensor begins on the device."""
        return self._base + self._layouts[profile].places[name].offset

    def view(self, profile: int, tensor: Tensor, shape: tuple[int, ...]) -> View:
        """Return a tensor of this shape."""
        offset = self._layouts[profile].places[tensor.name].offset
        raw = self._staging[offset : offset + tensor.dtype.itemsize * math.prod(shape)]
        return View(self._base + offset, raw, raw.view(tensor.dtype).reshape(shape))

    def copies(self, views: Sequence[View]) -> list[Copy]:
        """Return as few copies of tensors as there can be; `views` are in the order of memory."""
        ends: list[tuple[int, int]] = []
        for view in views:
            start, end = view.address - self._base, view.address - self._base + view.raw.nbytes
            if ends and start - ends[-1][1] <= GAP:
                ends[-1] = (ends[-1][0], end)
            elif start < end:
                ends.append((start, end))
        return [Copy(self._base + start, self._staging[start:end]) for start, end in ends]

    def close(self) -> None:
        """Give it back."""
        self._device.free()
        self._staging = np.empty(0, np.uint8)


def arrange(tensors: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]) -> Layout:
    """Lay tensors out.

    Args:
        tensors: in order.
        shapes: the largest of each, by name.
    """
    places: dict[str, Place] = {}
    offset = 0
    for tensor in tensors:
        nbytes = tensor.dtype.itemsize * math.prod(shapes[tensor.name])
        places[tensor.name] = Place(offset, nbytes)
        # An empty tensor has an address of its own, too.
        offset += aligned(max(1, nbytes))
    return Layout(places, offset)


def aligned(nbytes: int) -> int:
    """Round up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
