"""Slots: the memory that a request's rows are written into once, and a batch runs from.

The rows of one model and one shape lie side by side in a lane. Requests that arrive one
after the other are neighbours there, so that their batch is a view.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import RowSpec

from inferd_server.batching.lanes import Lane, LanePool, Rows, memory_of, row_bytes

LANE_SHARE = 8
"""A lane takes at most this part of the bytes that its model may hold."""
NO_BOUNDS: Mapping[int, int] = MappingProxyType({})


class Slot:
    """Rows reserved for one request."""

    __slots__ = (
        "_inputs", "arena", "at_work", "freed", "given_up", "lane", "level", "nbytes", "place",
        "rows", "start",
    )  # fmt: skip

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
        self.arena = arena
        self.lane = lane
        self.place = place
        """The rows that it is a part of: its lane's, or its own."""
        self.start = start
        self.rows = rows
        self._inputs = place.arrays if lane is None else None
        self.nbytes = nbytes
        self.level = level
        self.at_work = True
        """Counted among the rows that wait or run."""
        self.freed = False
        self.given_up = False

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

    def give_up(self) -> None:
        """Note that nobody waits for the answer any more; the rows stay until they are freed."""
        self.arena.give_up(self)

    def free(self) -> None:
        """Give the rows back. Safe to call twice: they may be another request's by then."""
        self.arena.release((self,))


class Bound(Enum):
    """A bound that a request may meet."""

    ROWS = "max_queue_rows"
    BYTES = "max_queue_bytes"
    PRIORITY = "priority_queue_rows"
    MEMORY = "input_bytes"


class NoRoom(Exception):
    """There is no room for a request."""

    def __init__(self, bound: Bound) -> None:
        super().__init__(bound.value)
        self.bound = bound


class Arena:
    """All the slots of one model. Every method may be called from any thread."""

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        lanes: LanePool | None = None,
        level_rows: Mapping[int, int] = NO_BOUNDS,
        levels: int = 1,
    ) -> None:
        """Hold nothing.

        Args:
            max_rows: that may be held.
            max_bytes: of inputs that may be held.
            lanes: of all models of the process; None: of this one alone.
            level_rows: rows that requests of a priority may hold, where less than all.
            levels: priorities that there are.
        """
        several = range(levels) if levels > 1 else ()
        # Of each priority, where there are several or it has a bound: what it may hold, and does.
        self._level_rows = dict.fromkeys(several, max_rows) | dict(level_rows)
        self._held = dict.fromkeys(self._level_rows, 0)
        self._pool = LanePool() if lanes is None else lanes
        self._closed = False
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        # The lane used last and its specs, which most requests share.
        self._latest: tuple[tuple[RowSpec, ...], Lane] | None = None
        self._rows = 0
        # Of those, rows for whose answers nobody waits, and rows outside of lanes by their shape.
        self._unwanted = 0
        self._apart: Tally[Hashable] = Tally()
        self._bytes = 0
        self._lock = self._pool.lock

    @property
    def rows(self) -> int:
        """Rows held now."""
        return self._rows

    @property
    def wanted(self) -> int:
        """Rows held now for whose answers somebody waits."""
        return self._rows - self._unwanted

    @property
    def nbytes(self) -> int:
        """Bytes of inputs held now."""
        return self._bytes

    @property
    def by_shape(self) -> Mapping[Hashable, int]:
        """Rows held now of each shape."""
        with self._lock:
            return self._apart + self._pool.held(self)

    def part_before(self, level: int) -> float:
        """Return which part of the rows held now is wanted, and of a priority or of higher ones."""
        with self._lock:
            rows = self._rows
            wanted = self.wanted / rows if rows else 1.0
            if level not in self._held:
                return wanted
            before = sum(held for own, held in self._held.items() if own <= level)
            return before / rows * wanted if rows else 0.0

    def reserve(self, specs: Sequence[RowSpec], rows: int, nbytes: int, level: int = 0) -> Slot:
        """Return a slot for `rows` rows of these shapes.

        Args:
            specs: dtype and row shape of every input.
            rows: how many.
            nbytes: what all the rows of all inputs weigh, for the bound in bytes.
            level: priority of the request.

        Raises:
            NoRoom: a bound is reached.
        """
        with self._lock:
            if self._rows + rows > self._max_rows:
                raise NoRoom(Bound.ROWS)
            if self._bytes + nbytes > self._max_bytes:
                raise NoRoom(Bound.BYTES)
            if level in self._held and self._held[level] + rows > self._level_rows[level]:
                raise NoRoom(Bound.PRIORITY)
            latest = self._latest
            lane = latest[1] if latest is not None and latest[0] is specs else None
            start = None if lane is None else lane.reserve(rows)
            if start is None:
                lane, start = self._elsewhere(tuple(specs), rows)
            if lane is None or start is None:
                slot = self._alone(specs, rows, nbytes, level)
            else:
                if self._pool.latest is not lane:
                    self._pool.use(lane)
                slot = Slot(self, lane, start, rows, lane.place, nbytes, level)
            self._rows += rows
            self._bytes += nbytes
            if level in self._held:
                self._held[level] += rows
            return slot

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """True if the memory could hold such a request, were it empty."""
        return self._pool.memory.fits(specs, rows, nbytes)

    def give_up(self, slot: Slot) -> None:
        """Note that nobody waits for the answer to a slot, which stays held until it is let go."""
        with self._lock:
            if slot.at_work and not slot.given_up:
                slot.given_up = True
                self._unwanted += slot.rows

    def count_out(self, slots: Iterable[Slot]) -> None:
        """Count requests no longer whose run is over; their rows stay until they are released.

        Before their answers are sent: who has one may ask again before the others have theirs.
        A model that is being replaced has two arenas, over one pool: these may be of both.
        """
        with self._lock:
            for slot in slots:
                if slot.at_work:
                    slot.arena.leave(slot)

    def release(self, slots: Iterable[Slot]) -> None:
        """Give slots back, be they this arena's or another's over the same pool."""
        with self._lock:
            for slot in slots:
                if slot.freed:
                    continue
                slot.freed = True
                if slot.at_work:
                    slot.arena.leave(slot)
                lane = slot.lane
                if lane is None:
                    self._pool.memory.give_back(slot.place)
                    continue
                lane.release(slot.start)
                if lane.replaced:
                    self._pool.ended(lane)

    def close(self) -> None:
        """Give the lanes back, each once nothing in it is held, and make no new ones."""
        with self._lock:
            self._closed = True
            self._latest = None
            self._pool.drop(self)

    def leave(self, slot: Slot) -> None:
        """Count one of its slots no longer; with the lock held."""
        slot.at_work = False
        if slot.given_up:
            self._unwanted -= slot.rows
        self._rows -= slot.rows
        self._bytes -= slot.nbytes
        if slot.lane is None:
            self._note_apart(tuple((one.dtype, one.shape[1:]) for one in slot.inputs), -slot.rows)
        if slot.level in self._held:
            self._held[slot.level] -= slot.rows

    def _elsewhere(self, specs: tuple[RowSpec, ...], rows: int) -> tuple[Lane | None, int | None]:
        """Reserve rows in another lane than the one used last, or in a larger one."""
        lane = self._lane(specs)
        start = None if lane is None else lane.reserve(rows)
        if start is None:
            lane = self._larger(specs, rows)
            start = None if lane is None else lane.reserve(rows)
        return lane, start

    def _alone(self, specs: Sequence[RowSpec], rows: int, nbytes: int, level: int) -> Slot:
        """Return a slot with rows of its own, which the batch gathers."""
        alone = self._pool.take(specs, rows, nbytes)
        if alone is None:
            raise NoRoom(Bound.MEMORY)
        self._note_apart(tuple(specs), rows)
        return Slot(self, None, 0, rows, alone, nbytes, level)

    def _note_apart(self, shape: tuple[RowSpec, ...], rows: int) -> None:
        """Count rows outside of lanes; nothing is kept of shapes that have none."""
        self._apart[shape] += rows
        if not self._apart[shape]:
            del self._apart[shape]

    def _lane(self, specs: tuple[RowSpec, ...]) -> Lane | None:
        lane = self._pool.find(self, specs)
        self._latest = None if lane is None else (specs, lane)
        return lane

    def _larger(self, specs: tuple[RowSpec, ...], rows: int) -> Lane | None:
        """Return a lane with more room than there was."""
        lane = None if self._closed else self._pool.make(self, specs, rows, self._most(specs))
        if lane is not None:
            self._latest = specs, lane
        return lane

    def _most(self, specs: tuple[RowSpec, ...]) -> int:
        """Return the rows of the largest lane: all that may wait, within a share of the bytes."""
        share = self._max_bytes // LANE_SHARE // max(1, row_bytes(specs))
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
