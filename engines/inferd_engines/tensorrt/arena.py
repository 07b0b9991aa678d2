"""Where each tensor lies in one block of memory, on the device and beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd_engines.engine import Tensor

ALIGNMENT = 256
"""Bytes that TensorRT wants addresses to be a multiple of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies."""

    offset: int
    nbytes: int
    """At the largest shape."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Places of tensors, one after the other, none beside the alignment."""

    places: Mapping[str, Place]
    nbytes: int


def arrange(tensors: Sequence[Tensor], shapes: Mapping[str, Sequence[int]]) -> Plan:
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
    return Plan(places, offset)


def aligned(nbytes: int) -> int:
    """Round up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
