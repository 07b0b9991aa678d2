"""Lanes: rings of rows of one shape, in which requests are neighbours, and the pool of all."""

from __future__ import annotations

import math
import threading
from collections import Counter as Tally
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Protocol, TypeAlias

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import RowSpec


class Rows(Protocol):
    """Rows side by side: one array for each input, all of one length."""

    @property
    def arrays(self) -> tuple[Array, ...]:
        """In the order of the signature; the first dimension counts rows."""


class Memory(Protocol):
    """Gives rows. Every method may be called from any thread."""

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return `rows` rows of these shapes, or None when there is no room.

        Args:
            specs: dtype and row shape of every input.
            rows: how many.
            nbytes: what they weigh in all; text more than its arrays of objects tell.
        """

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """True if `take` could give these rows, were nothing held."""

    def give_back(self, rows: Rows) -> None:
        """Nobody uses these rows any more."""

    def trim(self) -> None:
        """Return what nobody uses to the system, where it is not returned by itself."""

    def rounded(self, specs: Sequence[RowSpec], rows: int) -> int:
        """Return how many rows fit into the memory that so many of them take; as many or more."""

    def shares(self, specs: Sequence[RowSpec]) -> bool:
        """True if requests of these shapes may be neighbours in one piece of memory."""


class PrivateRows:
    """Rows in this process."""

    def __init__(self, arrays: tuple[Array, ...]) -> None:
        self.arrays = arrays


class PrivateMemory:
    """This process's own memory, without a bound of its own."""

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return new arrays."""
        del nbytes
        return PrivateRows(tuple(np.empty((rows, *shape), dtype) for dtype, shape in specs))

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """Always."""
        del specs, rows, nbytes
        return True

    def give_back(self, rows: Rows) -> None:
        """Do nothing: arrays go with the last reference."""

    def trim(self) -> None:
        """Do nothing: the allocator is told by others."""

    def rounded(self, specs: Sequence[RowSpec], rows: int) -> int:
        """Return so many: memory comes in any size."""
        del specs
        return rows

    def shares(self, specs: Sequence[RowSpec]) -> bool:
        """Always."""
        del specs
        return True


# Memory of a lane that is used before any more of it: what was written last is in the cache.
WARM_BYTES = 16 * 1024 * 1024
FIRST_BYTES = 64 * 1024
"""Of a lane that begins, at least; one that is too small is followed by one twice as large."""
KEPT_BYTES = 64 * 1024 * 1024
"""Of the lanes of one process, while some of them are idle."""
Specs: TypeAlias = tuple[RowSpec, ...]
Key: TypeAlias = tuple[object, Specs]
"""Whose lane it is, and of which shape."""


class Lane:
    """Rows given out in order and given back in any order."""

    def __init__(self, place: Rows, capacity: int, key: Key | None = None) -> None:
        self.capacity = capacity
        self.place = place
        self.key = key
        self.rows = 0
        """Rows held now."""
        self.replaced = False
        """True once it gets no more requests, and ends with those that it has."""
        self.arrays: tuple[Array, ...] = place.arrays
        self.row_bytes = tuple(
            array.dtype.itemsize * math.prod(array.shape[1:]) for array in self.arrays
        )
        self.memory: tuple[memoryview | None, ...] = tuple(map(memory_of, self.arrays))
        """Of every array, as bytes; None where the elements are objects."""
        self._objects: tuple[Array, ...] = tuple(
            array for array in self.arrays if array.dtype.hasobject
        )
        self._warm = min(capacity, WARM_BYTES // max(1, sum(self.row_bytes)))
        # Reservations in order, by their first row, and the rows of those not given back.
        self._starts: deque[int] = deque()
        self._held: dict[int, int] = {}
        self._head = 0

    @property
    def idle(self) -> bool:
        """True when no row is held."""
        return not self._starts

    @property
    def nbytes(self) -> int:
        """Bytes of all its rows."""
        return self.capacity * sum(self.row_bytes)

    def reserve(self, rows: int) -> int | None:
        """Return the first of `rows` consecutive free rows, or None."""
        starts, start = self._starts, self._head
        end = start + rows
        if self.replaced:
            return None
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
        self.rows += rows
        self._head = start + rows
        return start

    def release(self, start: int) -> None:
        """Give a reservation back."""
        held, starts = self._held, self._starts
        rows = held.pop(start)
        self.rows -= rows
        for array in self._objects:
            # Payloads must not live on in rows that nobody holds.
            array[start : start + rows] = None
        while starts and starts[0] not in held:
            starts.popleft()

    def forget(self) -> None:
        """Let go of memory that was given back; whoever still knows the lane must not keep it."""
        self.place = PrivateRows(())
        self.arrays = self.memory = self._objects = ()


class LanePool:
    """The lanes of all models of a process. Every method is called under `lock`.

    Who finds no room takes it from the lanes that are idle, whoever's they are, and from the one
    that was used least recently first.
    """

    def __init__(self, memory: Memory | None = None, kept_bytes: int = KEPT_BYTES) -> None:
        """Begin without any.

        Args:
            memory: where the rows are; None: this process's own.
            kept_bytes: of lanes; more are made only while none of them is idle.
        """
        self.lock = threading.Lock()
        self.memory = PrivateMemory() if memory is None else memory
        self.latest: Lane | None = None
        """The lane that was used last; whoever uses another one says so (`use`)."""
        self._kept = kept_bytes
        self._bytes = 0
        # The least recently used first; those that were replaced are not among them.
        self._lanes: OrderedDict[Key, Lane] = OrderedDict()
        # Those that were replaced, while some of their rows are held.
        self._ending: list[Lane] = []

    def find(self, owner: object, specs: Specs) -> Lane | None:
        """Return the lane of an owner and a shape; None if there is none now."""
        return self._lanes.get((owner, specs))

    def held(self, owner: object) -> Tally[Hashable]:
        """Return the rows held in lanes of each shape of an owner."""
        found: Tally[Hashable] = Tally()
        for lane in chain(self._lanes.values(), self._ending):
            if lane.key is not None and lane.key[0] is owner and lane.rows:
                found[lane.key[1]] += lane.rows
        return found

    def use(self, lane: Lane) -> None:
        """Note that a lane gets a request now."""
        self.latest = lane
        if lane.key is not None and lane.key in self._lanes:
            self._lanes.move_to_end(lane.key)

    def make(self, owner: object, specs: Specs, rows: int, most: int) -> Lane | None:
        """Make the lane of an owner and a shape, in the place of a smaller one.

        Args:
            owner: whoever may be compared.
            specs: dtype and row shape of every input.
            rows: that it has to hold.
            most: rows that it may hold.

        Returns:
            None if there is no memory for it, or rows of that shape share none.
        """
        before = self._lanes.get((owner, specs))
        capacity = self._capacity(specs, rows, most, before)
        if capacity is None or not self.memory.shares(specs):
            return None
        self._keep_to_bound(capacity * row_bytes(specs))
        place = self.take(specs, capacity, 0)
        if place is None:
            return None
        if before is not None:
            self._replace(before)
        key = owner, specs
        lane = self._lanes[key] = Lane(place, capacity, key)
        self._bytes += lane.nbytes
        return lane

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return rows of their own, for which idle lanes make room; None if that is too little."""
        memory = self.memory
        found = memory.take(specs, rows, nbytes)
        if found is None and memory.fits(specs, rows, nbytes):
            while found is None and self._evict():
                found = memory.take(specs, rows, nbytes)
        return found

    def ended(self, lane: Lane) -> None:
        """Give a lane back that was replaced, if its last request is over."""
        if lane.idle:
            self._ending.remove(lane)
            self._bytes -= lane.nbytes
            self.memory.give_back(lane.place)
            lane.forget()

    def drop(self, owner: object) -> None:
        """Give the lanes of an owner back, each once nothing in it is held."""
        for lane in [lane for (whose, _), lane in self._lanes.items() if whose is owner]:
            self._replace(lane)

    def release_idle(self) -> None:
        """Give back every lane that is idle, and what else nobody uses; takes the lock itself."""
        with self.lock:
            while self._evict():
                pass
            self.memory.trim()

    def gauges(self) -> Mapping[str, float]:
        """Return the bytes of all lanes, and of the idle ones; takes the lock itself."""
        with self.lock:
            idle = sum(lane.nbytes for lane in self._lanes.values() if lane.idle)
            return {"inferd_lane_bytes": self._bytes, "inferd_idle_lane_bytes": idle}

    def _capacity(self, specs: Specs, rows: int, most: int, before: Lane | None) -> int | None:
        """Return how many rows the next lane has; None if it may not be larger than the last."""
        row = max(1, row_bytes(specs))
        if before is None:
            wanted = max(rows, FIRST_BYTES // row)
        elif before.capacity < most:
            wanted = max(rows, 2 * before.capacity)
        else:
            return None
        return min(most, self.memory.rounded(specs, wanted)) if rows <= most else None

    def _keep_to_bound(self, nbytes: int) -> None:
        while self._bytes + nbytes > self._kept and self._evict():
            pass

    def _evict(self) -> bool:
        """Give the lane back that was idle longest; False if none is idle."""
        idle = next((lane for lane in self._lanes.values() if lane.idle), None)
        if idle is not None:
            self._replace(idle)
        return idle is not None

    def _replace(self, lane: Lane) -> None:
        if lane.key is not None:
            del self._lanes[lane.key]
        lane.replaced = True
        self._ending.append(lane)
        if self.latest is lane:
            self.latest = None
        self.ended(lane)


def row_bytes(specs: Sequence[RowSpec]) -> int:
    """Return the bytes of one row of all inputs; of text, of what refers to it."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs)


def memory_of(array: Array) -> memoryview | None:
    """Return an array's bytes; None for objects, which have none of their own."""
    # A view as bytes, because memoryview knows no bfloat16.
    return None if array.dtype.hasobject else array.reshape(-1).view(np.uint8).data
