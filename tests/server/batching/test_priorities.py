"""Who goes first, and that nobody waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.slots import Arena, NoRoom

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request
from tests.server.callers import ROW

LEVELS, HEAD_START = 3, 10.0
LIMITS = BatchBounds(1, levels=LEVELS, head_start=HEAD_START)


def order(requests: list[Request]) -> list[Request]:
    """Return requests as they run, one at a time, given as they come."""
    queue: BatchQueue[Request] = BatchQueue(LIMITS, FakeClock(1000.0))
    for request in requests:
        assert queue.submit(request)
    queue.close()
    taken = []
    while (decision := queue.take()) is not None:
        taken += decision.run
    return taken


def test_a_higher_priority_goes_first_and_equals_keep_their_order() -> None:
    low, high, other = Request(level=2), Request(level=0, arrived=1.0), Request(level=0, arrived=2)
    assert order([low, high, other]) == [high, other, low]


def test_who_waited_for_longer_than_the_head_start_goes_first() -> None:
    low = Request(level=1, arrived=0.0)
    high = Request(level=0, arrived=HEAD_START + 1)
    assert order([low, high]) == [low, high]


@given(st.lists(st.tuples(st.integers(0, LEVELS - 1), st.integers(0, 100)), max_size=30))
def test_nobody_is_overtaken_by_who_came_later_than_the_head_start(
    sent: list[tuple[int, int]],
) -> None:
    came = sorted(sent, key=lambda one: one[1])
    requests = [Request(level=level, arrived=float(at)) for level, at in came]
    taken = order(requests)
    assert sorted(map(id, taken)) == sorted(map(id, requests))
    for place, request in enumerate(taken):
        for earlier in taken[:place]:
            lead = (request.level - earlier.level) * HEAD_START
            assert earlier.arrived <= request.arrived + max(0.0, lead)
            if earlier.level >= request.level:
                assert earlier.arrived <= request.arrived


def test_who_waited_for_long_enough_waits_behind_all_others_from_then_on() -> None:
    clock = FakeClock()
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(1, levels=2, delays=True), clock)
    delayed = [Request(level=0, delay_at=5.0), Request(level=1, delay_at=5.0)]
    others = [Request(level=1, arrived=1.0), Request(level=0, arrived=2.0)]
    gone = Request(level=0, delay_at=5.0)
    for request in (*delayed, *others, gone):
        assert queue.submit(request)
    clock.advance(4.0)
    assert queue.poll().run == (delayed.pop(0),)
    clock.advance(1.0)
    assert queue.poll().run == (others[0],)
    # Also behind those that come later.
    others.append(Request(level=1, arrived=5.0))
    assert queue.submit(others[-1])
    assert queue.withdraw(gone)
    assert [queue.poll().run for _ in range(2)] == [(others[1],), (others[2],)]
    assert queue.waiting_requests == 1
    assert queue.poll().run == (delayed[0],)
    assert queue.rows == 0


def test_a_request_of_any_priority_can_be_withdrawn() -> None:
    queue: BatchQueue[Request] = BatchQueue(LIMITS, FakeClock())
    low = Request(level=2)
    queue.submit(low)
    assert queue.withdraw(low)
    assert not queue.withdraw(low)
    assert queue.rows == 0


def test_a_priority_has_bounds_of_its_own() -> None:
    arena = Arena(8, 10**6, level_rows={2: 2})
    first = arena.reserve(ROW, 2, 32, 2)
    assert first is not None
    with pytest.raises(NoRoom, match="priority_queue_rows"):
        arena.reserve(ROW, 1, 16, 2)
    assert arena.reserve(ROW, 6, 96, 0) is not None
    first.free()
    first.free()
    assert arena.reserve(ROW, 1, 16, 2) is not None
    with pytest.raises(NoRoom):
        arena.reserve(ROW, 2, 32, 2)
