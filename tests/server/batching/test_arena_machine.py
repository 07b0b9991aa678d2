"""The arena against a model of it: what is written into a slot stays until it is freed."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from inferd_engines.engine import RowSpec
from inferd_server.batching.lanes import LanePool, PrivateMemory
from inferd_server.batching.slots import Arena, NoRoom, Slot, batch_views

MAX_ROWS, MAX_BYTES, KEPT_BYTES = 12, 800, 300
FLOATS: list[RowSpec] = [(np.dtype(np.float32), (2,)), (np.dtype(np.int64), ())]
WIDE: list[RowSpec] = [(np.dtype(np.uint8), (90,))]
TEXT: list[RowSpec] = [(np.dtype(np.object_), (2,))]
EMPTY: list[RowSpec] = [(np.dtype(np.float32), (0,))]
SHAPES = [FLOATS, WIDE, TEXT, EMPTY]


def weight(specs: list[RowSpec], rows: int) -> int:
    return rows * sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in specs)


class ArenaMachine(RuleBasedStateMachine):
    """Reserves, frees in any order, and reads everything back each time."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(MAX_ROWS, MAX_BYTES, LanePool(PrivateMemory(), KEPT_BYTES))
        self.held: list[tuple[Slot, list[RowSpec], int]] = []
        # Counted no longer, and not freed yet.
        self.ending: list[tuple[Slot, list[RowSpec], int]] = []
        self.serial = 0

    @rule(specs=st.sampled_from(SHAPES), rows=st.integers(1, 6))
    def reserve(self, specs: list[RowSpec], rows: int) -> None:
        nbytes = weight(specs, rows)
        held_rows = sum(s.rows for s, _, _ in self.held)
        held_bytes = sum(s.nbytes for s, _, _ in self.held)
        fits = held_rows + rows <= MAX_ROWS and held_bytes + nbytes <= MAX_BYTES
        try:
            slot = self.arena.reserve(specs, rows, nbytes)
        except NoRoom:
            assert not fits
            return
        assert fits
        assert [(a.dtype, a.shape) for a in slot.inputs] == [(d, (rows, *s)) for d, s in specs]
        self.serial = self.serial % 250 + 1
        for array in slot.inputs:
            array[...] = self.serial
        self.held.append((slot, specs, self.serial))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), again=st.booleans())
    def free(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        slot, _, _ = self.held.pop(index)
        slot.free()
        if again:
            slot.free()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), again=st.booleans())
    def count_out(self, data: st.DataObject, again: bool) -> None:
        count = data.draw(st.integers(1, len(self.held)))
        ended, self.held = self.held[:count], self.held[count:]
        slots = [slot for slot, _, _ in ended]
        self.arena.count_out(slots)
        if again:
            self.arena.count_out(slots)
        self.ending += ended

    @precondition(lambda self: self.ending)
    @rule()
    def release(self) -> None:
        self.arena.release([slot for slot, _, _ in self.ending])
        self.ending.clear()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def batch(self, data: st.DataObject) -> None:
        specs = data.draw(st.sampled_from([specs for _, specs, _ in self.held]))
        same = [slot for slot, other, _ in self.held if other is specs]
        slots = data.draw(st.lists(st.sampled_from(same), min_size=1, unique_by=id))
        views = batch_views(slots)
        for index, view in enumerate(views):
            expected = np.concatenate([slot.inputs[index] for slot in slots])
            np.testing.assert_array_equal(view, expected)
            assert view.flags.c_contiguous

    @invariant()
    def every_slot_holds_what_was_written(self) -> None:
        for slot, _, serial in (*self.held, *self.ending):
            assert all((array == serial).all() for array in slot.inputs)

    @invariant()
    def rows_are_those_held(self) -> None:
        assert self.arena.rows == sum(slot.rows for slot, _, _ in self.held)

    @invariant()
    def rows_of_all_shapes_are_those_held_and_of_those_whose_run_just_ended(self) -> None:
        ended = sum(slot.rows for slot, _, _ in self.ending)
        assert 0 <= sum(self.arena.by_shape.values()) - self.arena.rows <= ended

    def teardown(self) -> None:
        for slot, _, _ in (*self.held, *self.ending):
            slot.free()
        assert self.arena.rows == 0
        # All bounds are free again, in rows and in bytes.
        specs: list[RowSpec] = [(np.dtype(np.uint8), (1,))]
        assert self.arena.reserve(specs, MAX_ROWS, MAX_BYTES) is not None


TestArenaMachine = ArenaMachine.TestCase
