"""A lane: a ring of rows of one shape, in which requests are neighbours."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from inferd.tensors import Array

from inferd_server.scheduler.rows import Rows

# Memory of a lane that is used before any more of it: what was written last is in the cache.
WARM_BYTES = 16 * 1024 * 1024


class Lane:
    """Rows given out in order and given back in any order."""

    def __init__(self, place: Rows, capacity: int) -> None:
        self.capacity = capacity
        self.place = place
        self.arrays = place.arrays
        self.row_bytes = tuple(
            array.dtype.itemsize * math.prod(array.shape[1:]) for array in self.arrays
        )
        self.memory = tuple(memory_of(array) for array in self.arrays)
        """Of every array, as bytes; None where the elements are objects."""
        self._objects = tuple(array for array in self.arrays if array.dtype.hasobject)
        self._warm = min(capacity, WARM_BYTES // max(1, sum(self.row_bytes)))
        # Reservations in order, by their first row, and the rows of each; 0 once given back.
        self._starts: deque[int] = deque()
        self._held = [0] * capacity
        self._head = 0

    @property
    def idle(self) -> bool:
        """True when no row is held."""
        return not self._starts

    def reserve(self, rows: int) -> int | None:
        """Return the first of `rows` consecutive free rows, or None."""
        starts, start = self._starts, self._head
        end = start + rows
        if not starts:
            start = 0
            fits = rows <= self.capacity
        elif starts[-1] < starts[0]:
            fits = end <= starts[0]
        else:
            # At the front again as soon as there is room, but for the part that stays warm.
            fits = end <= self._warm or (end <= self.capacity and rows > starts[0])
            if not fits:
                start = 0
                fits = rows <= starts[0]
        if not fits:
            return None
        starts.append(start)
        self._held[start] = rows
        self._head = start + rows
        return start

    def release(self, start: int) -> None:
        """Give a reservation back."""
        held, starts = self._held, self._starts
        for array in self._objects:
            # Payloads must not live on in rows that nobody holds.
            array[start : start + held[start]] = None
        held[start] = 0
        while starts and not held[starts[0]]:
            starts.popleft()


def memory_of(array: Array) -> memoryview | None:
    """Return an array's bytes; None for objects, which have none of their own."""
    # A view as bytes, because memoryview knows no bfloat16.
    return None if array.dtype.hasobject else array.reshape(-1).view(np.uint8).data
