"""Slots, lanes and the views of a batch."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import RowSpec
from inferd_server.batching.lanes import Lane, LanePool, PrivateMemory
from inferd_server.batching.slots import LANE_SHARE, Arena, Bound, NoRoom, Slot, batch_views

SPECS: list[RowSpec] = [(np.dtype(np.float32), (2,)), (np.dtype(np.int64), (3,))]
TEXT: list[RowSpec] = [(np.dtype(np.object_), (1,))]
ROW_BYTES = 2 * 4 + 3 * 8
PLENTY = 10**6


def reserve(arena: Arena, rows: int, specs: list[RowSpec] = SPECS) -> Slot:
    return arena.reserve(specs, rows, rows * ROW_BYTES)


def lane_of(capacity: int) -> Lane:
    memory = PrivateMemory().take(SPECS, capacity, 0)
    assert memory is not None
    return Lane(memory, capacity)


def number(slots: list[Slot]) -> None:
    for serial, slot in enumerate(slots):
        for array in slot.inputs:
            array[...] = serial


def assert_gathers(slots: list[Slot], views: tuple[Array, ...]) -> None:
    for index, view in enumerate(views):
        np.testing.assert_array_equal(view, np.concatenate([s.inputs[index] for s in slots]))


def copied(slots: list[Slot], views: tuple[Array, ...]) -> bool:
    return not any(np.shares_memory(view, slots[0].inputs[i]) for i, view in enumerate(views))


def test_neighbours_batch_without_a_copy() -> None:
    arena = Arena(16, PLENTY)
    slots = [reserve(arena, rows) for rows in (1, 3, 2)]
    number(slots)
    views = batch_views(slots)
    assert_gathers(slots, views)
    for index, view in enumerate(views):
        assert all(np.shares_memory(view, slot.inputs[index]) for slot in slots)


def test_one_slot_is_its_own_batch() -> None:
    slot = reserve(Arena(4, PLENTY), 2)
    assert batch_views([slot]) == slot.inputs


@pytest.mark.parametrize("order", [[1, 0], [0, 2], [2, 1, 0]])
def test_slots_that_are_not_neighbours_in_order_are_gathered(order: list[int]) -> None:
    arena = Arena(16, PLENTY)
    slots = [reserve(arena, 2) for _ in range(3)]
    number(slots)
    chosen = [slots[index] for index in order]
    views = batch_views(chosen)
    assert_gathers(chosen, views)
    assert copied(chosen, views)


def test_slots_around_the_end_of_the_ring_are_gathered() -> None:
    arena = Arena(6, PLENTY)
    first, second = reserve(arena, 4), reserve(arena, 2)
    first.free()
    third = reserve(arena, 3)
    assert (second.start, third.start) == (4, 0)
    number([second, third])
    views = batch_views([second, third])
    assert_gathers([second, third], views)
    assert copied([second, third], views)


def test_slots_with_equal_starts_in_different_places_are_gathered() -> None:
    # No row fits into a lane's share of the bytes, so these stand alone, both at row 0.
    arena = Arena(8, ROW_BYTES * LANE_SHARE - 1)
    alone = [reserve(arena, 1), reserve(arena, 1)]
    assert [slot.lane for slot in alone] == [None, None]
    number(alone)
    assert_gathers(alone, batch_views(alone))


def test_rows_come_back_in_any_order() -> None:
    lane = lane_of(6)
    starts = [lane.reserve(2) for _ in range(3)]
    assert starts == [0, 2, 4]
    lane.release(2)
    # The ring goes on at the oldest reservation only.
    assert lane.reserve(1) is None
    lane.release(0)
    assert lane.reserve(4) == 0
    assert lane.reserve(1) is None
    lane.release(4)
    lane.release(0)
    assert lane.idle
    assert lane.reserve(6) == 0


def test_a_lane_never_gives_more_than_it_has() -> None:
    assert lane_of(4).reserve(5) is None


@pytest.mark.parametrize(
    ("rows", "nbytes", "level", "bound"),
    [(5, 1, 0, Bound.ROWS), (1, 101, 0, Bound.BYTES), (2, 1, 1, Bound.PRIORITY)],
)
def test_a_bound_refuses_and_is_named(rows: int, nbytes: int, level: int, bound: Bound) -> None:
    arena = Arena(4, 100, level_rows={1: 1})
    with pytest.raises(NoRoom) as refused:
        arena.reserve(SPECS, rows, nbytes, level)
    assert refused.value.bound is bound
    assert arena.rows == 0
    arena.reserve(SPECS, 4, 100)


def test_freeing_twice_does_not_free_the_rows_of_the_next() -> None:
    arena = Arena(2, PLENTY)
    first = reserve(arena, 2)
    first.free()
    second = reserve(arena, 2)
    assert second.start == first.start
    first.free()
    assert arena.rows == 2
    with pytest.raises(NoRoom):
        arena.reserve(SPECS, 1, 1)


@pytest.mark.parametrize("counted", [True, False])
def test_slots_of_two_arenas_are_given_back_each_to_its_own(counted: bool) -> None:
    # What a worker that died had, runs with what came for the model since.
    lanes = LanePool()
    arenas = [Arena(16, PLENTY, lanes) for _ in range(2)]
    slots = [reserve(arenas[place], rows) for place, rows in ((0, 1), (1, 2), (0, 3))]
    stays = [reserve(arena, 1) for arena in arenas]
    if counted:
        arenas[0].count_out(slots)
        assert [arena.rows for arena in arenas] == [1, 1]
    arenas[0].release(slots)
    assert [arena.rows for arena in arenas] == [1, 1]
    assert [arena.nbytes for arena in arenas] == [ROW_BYTES, ROW_BYTES]
    arenas[1].release(stays)
    assert [arena.rows for arena in arenas] == [0, 0]


def test_rows_too_big_for_a_lanes_share_stand_alone_and_keep_nothing() -> None:
    arena = Arena(100, 1000)
    specs: list[RowSpec] = [(np.dtype(np.uint8), (300,))]
    slot = arena.reserve(specs, 1, 300)
    assert slot.lane is None
    memory = weakref.ref(slot.inputs[0])
    slot.free()
    del slot
    assert memory() is None


@pytest.mark.parametrize("nbytes", [PLENTY, LANE_SHARE * 4 * 40, LANE_SHARE * 40])
def test_rows_count_by_shape_wherever_they_are(nbytes: int) -> None:
    """Lanes hold all, or some: then a larger one takes the place of the first, or none does."""
    arena = Arena(1000, PLENTY)
    arena._max_bytes, few = nbytes, [(np.dtype(np.float32), (10,))]
    slots = [arena.reserve(few, 1, 1) for _ in range(40)]
    slots += [arena.reserve(SPECS, 3, 1)]
    assert arena.by_shape == {tuple(few): 40, tuple(SPECS): 3}
    for slot in slots[10:40]:
        slot.free()
    assert arena.by_shape == {tuple(few): 10, tuple(SPECS): 3}
    arena.close()
    assert arena.by_shape == {tuple(few): 10, tuple(SPECS): 3}
    for slot in slots:
        slot.free()
    assert arena.by_shape == {}


def test_payloads_do_not_outlive_their_request() -> None:
    class Payload:
        """Something that a weak reference can point to."""

    arena = Arena(4, PLENTY)
    slot = reserve(arena, 1, TEXT)
    slot.inputs[0][0, 0] = Payload()
    payload = weakref.ref(slot.inputs[0][0, 0])
    assert payload() is not None
    slot.free()
    assert payload() is None


def test_no_inputs_make_an_empty_batch() -> None:
    slot = Arena(4, PLENTY).reserve([], 1, 0)
    assert batch_views([slot]) == ()


def test_threads_never_share_rows() -> None:
    arena = Arena(24, PLENTY)
    torn: list[int] = []

    def work(serial: int) -> None:
        for turn in range(400):
            try:
                slot = arena.reserve(SPECS, 1 + turn % 5, ROW_BYTES)
            except NoRoom:
                continue
            for array in slot.inputs:
                array[...] = serial
            if not all((array == serial).all() for array in slot.inputs):
                torn.append(serial)
            slot.free()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []
    assert arena.rows == 0
    arena.reserve(SPECS, 24, PLENTY)
