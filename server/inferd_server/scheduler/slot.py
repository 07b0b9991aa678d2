"""Slots: the memory that a request's rows are written into once, and a batch runs from.

The rows of one model and one shape lie side by side in a lane. Requests that arrive one
after the other are neighbours there, so that their batch is a view.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from inferd.tensors import Array

from inferd_server.scheduler.lane import Lane, memory_of
from inferd_server.scheduler.rows import Memory, PrivateMemory, Rows, RowSpec

__all__ = ["Arena", "RowSpec", "Slot", "batch_views"]


NO_BOUNDS: Mapping[int, int] = MappingProxyType({})


class Slot:
    """Rows reserved for one request."""

    __slots__ = ("_arena", "_inputs", "freed", "lane", "level", "nbytes", "place", "rows", "start")

    def __init__(
        self,
        arena: Arena,
        lane: Lane | None,
        start: int,
        rows: int,
        place: Rows,
        nbytes: int,
        level: int = 0,
    ) -> None:
        self._arena = arena
        self.lane = lane
        self.place = place
        """The rows that it is a part of: its lane's, or its own."""
        self.start = start
        self.rows = rows
        self._inputs = place.arrays if lane is None else None
        self.nbytes = nbytes
        self.level = level
        self.freed = False

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The views to fill, in signature order."""
        if self._inputs is None:
            # Made when asked for: what is copied as bytes and runs in a batch never asks.
            assert self.lane is not None
            start, end = self.start, self.start + self.rows
            self._inputs = tuple(array[start:end] for array in self.lane.arrays)
        return self._inputs

    def memory(self, index: int) -> memoryview:
        """Return one input's rows as bytes to fill; not for elements that are objects."""
        lane = self.lane
        if lane is None:
            found = memory_of(self.inputs[index])
        else:
            size = lane.row_bytes[index]
            start = self.start * size
            whole = lane.memory[index]
            found = None if whole is None else whole[start : start + self.rows * size]
        assert found is not None
        return found

    def free(self) -> None:
        """Give the rows back. Safe to call twice: they may be another request's by then."""
        self._arena.release(self)


class Arena:
    """All the slots of one model. Every method may be called from any thread."""

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        max_lanes: int = 8,
        memory: Memory = PrivateMemory(),  # noqa: B008 it has no state
        level_rows: Mapping[int, int] = NO_BOUNDS,
    ) -> None:
        """Hold nothing.

        Args:
            max_rows: that may be held.
            max_bytes: of inputs that may be held.
            max_lanes: shapes whose rows lie side by side.
            memory: where the rows are.
            level_rows: rows that requests of a priority may hold, where less than all.
        """
        self._level_rows = level_rows
        self._held = dict.fromkeys(level_rows, 0)
        self._memory = memory
        self._closed = False
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_lanes = max_lanes
        self._lanes: dict[tuple[RowSpec, ...], Lane] = {}
        # The lane used last and its specs, which most requests share.
        self._latest: tuple[tuple[RowSpec, ...], Lane] | None = None
        self._rows = 0
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """Rows held now."""
        return self._rows

    def reserve(
        self, specs: Sequence[RowSpec], rows: int, nbytes: int, level: int = 0
    ) -> Slot | None:
        """Return a slot for `rows` rows of these shapes, or None when a bound is reached.

        Args:
            specs: dtype and row shape of every input.
            rows: how many.
            nbytes: what all the rows of all inputs weigh, for the bound in bytes.
            level: priority of the request.
        """
        with self._lock:
            if self._rows + rows > self._max_rows or self._bytes + nbytes > self._max_bytes:
                return None
            if level in self._held and self._held[level] + rows > self._level_rows[level]:
                return None
            latest = self._latest
            if latest is not None and latest[0] is specs:
                lane: Lane | None = latest[1]
            else:
                lane = self._lane(tuple(specs), rows)
            start = None if lane is None else lane.reserve(rows)
            if lane is not None and start is not None:
                slot = Slot(self, lane, start, rows, lane.place, nbytes, level)
            else:
                # No room side by side: rows of its own, which the batch gathers.
                alone = self._memory.take(specs, rows, nbytes)
                if alone is None:
                    return None
                slot = Slot(self, None, 0, rows, alone, nbytes, level)
            self._rows += rows
            self._bytes += nbytes
            if level in self._held:
                self._held[level] += rows
            return slot

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """True if the memory could hold such a request, were it empty."""
        return self._memory.fits(specs, rows, nbytes)

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        with self._lock:
            if slot.freed:
                return
            slot.freed = True
            self._rows -= slot.rows
            self._bytes -= slot.nbytes
            if slot.level in self._held:
                self._held[slot.level] -= slot.rows
            if slot.lane is None:
                self._memory.give_back(slot.place)
                return
            slot.lane.release(slot.start)
            if self._closed:
                self._drop_idle()

    def close(self) -> None:
        """Give the lanes back, each once nothing in it is held, and make no new ones."""
        with self._lock:
            self._closed = True
            self._latest = None
            self._drop_idle()

    def _lane(self, specs: tuple[RowSpec, ...], rows: int) -> Lane | None:
        self._latest = None
        lane = self._lanes.pop(specs, None)
        if lane is None:
            capacity = self._capacity(specs)
            if self._closed or capacity < rows or not self._memory.shares(specs):
                return None
            if len(self._lanes) >= self._max_lanes and not self._evict():
                return None
            place = self._memory.take(specs, capacity, 0)
            if place is None:
                return None
            lane = Lane(place, capacity)
        self._lanes[specs] = lane
        self._latest = specs, lane
        return lane

    def _evict(self) -> bool:
        """Drop the lane that was idle longest."""
        idle = next((specs for specs, lane in self._lanes.items() if lane.idle), None)
        if idle is None:
            return False
        self._memory.give_back(self._lanes.pop(idle).place)
        return True

    def _drop_idle(self) -> None:
        while self._evict():
            pass

    def _capacity(self, specs: tuple[RowSpec, ...]) -> int:
        """Rows of a lane: all that may wait, within this lane's share of the bytes."""
        row = sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs)
        # Lanes stay when they are idle, so together they keep to the bound.
        share = self._max_bytes // self._max_lanes // max(1, row)
        return min(self._max_rows, share)


def batch_views(slots: Sequence[Slot]) -> tuple[Array, ...]:
    """Return every input of a batch as one contiguous array.

    A view where the slots are neighbours in one lane; otherwise a gathered copy.
    """
    first = slots[0]
    if len(slots) == 1:
        return first.inputs
    lane, end = first.lane, first.start
    for slot in slots:
        if lane is None or slot.lane is not lane or slot.start != end:
            return tuple(
                np.concatenate(parts) for parts in zip(*(s.inputs for s in slots), strict=True)
            )
        end += slot.rows
    assert lane is not None
    return tuple(array[first.start : end] for array in lane.arrays)
