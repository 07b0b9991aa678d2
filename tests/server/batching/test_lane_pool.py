"""The lanes of all models of a process: they begin small, grow, and make room for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from inferd_engines.engine import RowSpec
from inferd_server.batching.lanes import FIRST_BYTES, LanePool, Memory, PrivateMemory
from inferd_server.batching.slots import Arena, Bound, NoRoom, Slot
from inferd_server.processes.link.inputs import InputMemory

KIB, MIB = 1024, 1024 * 1024
SIZE = 32 * MIB
ROW = 600 * KIB


def link_memory() -> Memory:
    """Memory that a front shares with the worker."""
    return InputMemory(np.zeros(SIZE, np.uint8))


MEMORIES: list[Callable[[], Memory]] = [link_memory, PrivateMemory]


@pytest.fixture(params=MEMORIES, ids=["link", "one process"])
def pool(request: pytest.FixtureRequest) -> LanePool:
    return LanePool(request.param(), SIZE)


def of_width(width: int) -> list[RowSpec]:
    return [(np.dtype(np.uint8), (width,))]


def model(pool: LanePool) -> Arena:
    return Arena(1024, SIZE, pool)


def reserve(arena: Arena, width: int = ROW, rows: int = 1) -> Slot:
    return arena.reserve(of_width(width), rows, rows * width)


def serve(arena: Arena, widths: Iterable[int]) -> None:
    """Let one request of each width come and go."""
    for width in widths:
        reserve(arena, width).free()


def fill(models: list[Arena]) -> list[Slot]:
    """Reserve rows until the memory is full, or as many as it has."""
    slots: list[Slot] = []
    for arena in models * (SIZE // ROW // len(models) + 1):
        try:
            slots.append(reserve(arena))
        except NoRoom:
            break
    return slots


def held(pool: LanePool) -> float:
    return pool.gauges()["inferd_lane_bytes"]


def test_twenty_models_that_answered_one_request_each_take_one_row_each(pool: LanePool) -> None:
    models = [model(pool) for _ in range(20)]
    for arena in models:
        slot = reserve(arena)
        assert slot.lane is not None
        slot.free()
    assert held(pool) <= 20 * 2 * ROW
    # Each may still have many at a time, in whose favour the others' lanes go.
    slots = [reserve(models[0]) for _ in range(20)]
    assert held(pool) <= SIZE
    for slot in slots:
        slot.free()


def test_a_model_of_many_widths_leaves_room_for_another_ones_first_request(
    pool: LanePool,
) -> None:
    one, other = model(pool), model(pool)
    serve(one, [n * 2 * MIB // 8 for n in range(4, 16)])
    slots = [reserve(other) for _ in range(16)]
    assert held(pool) <= SIZE
    for slot in slots:
        slot.free()


def test_a_loop_whose_cache_grows_by_a_step_leaves_room_for_every_other_model(
    pool: LanePool,
) -> None:
    loop, other = model(pool), model(pool)
    serve(loop, [KIB * step for step in range(1, 151)])
    assert held(pool) <= SIZE
    slot = reserve(other)
    assert slot.lane is not None
    slot.free()


def test_the_lane_that_was_used_least_recently_goes_first() -> None:
    pool = LanePool(PrivateMemory(), 3 * MIB)
    models = [Arena(1, 8 * MIB, pool) for _ in range(4)]
    lanes = []
    for arena in models[:3]:
        slot = reserve(arena, MIB)
        lanes.append(slot.lane)
        slot.free()
    serve(models[0], [MIB])
    serve(models[3], [MIB])
    assert [lane is not None and lane.replaced for lane in lanes] == [False, True, False]


def test_a_lane_that_holds_a_request_is_never_given_back(pool: LanePool) -> None:
    models = [model(pool) for _ in range(24)]
    slots = [reserve(arena) for arena in models]
    for serial, slot in enumerate(slots):
        slot.inputs[0][...] = serial
    # What room there is left is taken, and what there is not is refused.
    more = fill(models)
    assert all((slot.inputs[0] == n).all() for n, slot in enumerate(slots))
    for slot in slots + more:
        slot.free()


def test_a_lane_begins_small_and_grows_with_its_requests() -> None:
    pool = LanePool(PrivateMemory(), SIZE)
    arena = Arena(1 << 30, 1 << 40, pool)
    slots = [reserve(arena, KIB)]
    assert held(pool) == FIRST_BYTES
    slots += [reserve(arena, KIB) for _ in range(1000)]
    assert held(pool) <= 4 * 1000 * KIB
    for slot in slots:
        slot.free()
    # The smaller ones went with their last request.
    assert held(pool) == 16 * FIRST_BYTES


def test_neighbours_lie_side_by_side_again_once_a_lane_has_grown(pool: LanePool) -> None:
    arena = model(pool)
    for _ in range(2):
        for slot in [reserve(arena) for _ in range(4)]:
            slot.free()
    again = [reserve(arena) for _ in range(4)]
    assert len({id(slot.lane) for slot in again}) == 1
    assert [slot.start for slot in again] == [0, 1, 2, 3]


def test_memory_of_a_closed_model_comes_back_with_its_last_request(pool: LanePool) -> None:
    arena = model(pool)
    slot = reserve(arena)
    arena.close()
    assert held(pool) > 0
    slot.free()
    assert held(pool) == 0
    assert reserve(arena).lane is None


def test_idle_lanes_are_told_from_those_in_use(pool: LanePool) -> None:
    one, other = model(pool), model(pool)
    serve(one, [MIB])
    slot = reserve(other, MIB)
    gauges = pool.gauges()
    assert 0 < gauges["inferd_idle_lane_bytes"] < gauges["inferd_lane_bytes"]
    slot.free()
    gauges = pool.gauges()
    assert gauges["inferd_idle_lane_bytes"] == gauges["inferd_lane_bytes"]


def test_what_no_lane_may_hold_does_not_cost_the_others_theirs() -> None:
    pool = LanePool(link_memory(), SIZE)
    one, other = model(pool), Arena(10, 4 * SIZE, pool)
    serve(one, [MIB])
    before = held(pool)
    with pytest.raises(NoRoom) as refused:
        reserve(other, 2 * SIZE)
    assert refused.value.bound is Bound.MEMORY
    assert held(pool) == before


def test_a_bound_reserves_nothing(pool: LanePool) -> None:
    arena = Arena(2**31 - 1, 2**40, pool)
    for width in (1, 1000):
        reserve(arena, width).free()
    assert held(pool) <= 4 * FIRST_BYTES


def test_an_idle_pool_gives_all_of_its_lanes_back(pool: LanePool) -> None:
    first, second = model(pool), model(pool)
    serve(first, range(1000, 20_000, 1000))
    held = reserve(second, 500)
    held.memory(0)[:] = b"x" * 500
    pool.release_idle()
    gauges = pool.gauges()
    assert gauges["inferd_idle_lane_bytes"] == 0
    assert gauges["inferd_lane_bytes"] > 0
    assert bytes(held.memory(0)) == b"x" * 500
    held.free()
    pool.release_idle()
    assert pool.gauges()["inferd_lane_bytes"] == 0
    serve(first, [1000])
