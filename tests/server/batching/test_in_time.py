"""Who runs, who waits and who is dropped, so that those who run are in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.batch_size import NEVER, in_time, must_end
from inferd_server.batching.decision import BatchBounds, next_batch
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.run_costs import FRESH_S, RunCosts

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request

NOW = 100.0


def due(*left: float, key: str = "a") -> list[Request]:
    """Requests of one row with so many seconds left."""
    return [Request(arrived=99.0, deadline=NOW + seconds, key=key) for seconds in left]


def seconds(rows: int) -> float:
    return 5.0 + rows


def known(most: int = 8, at: float = NOW, key: str = "a") -> RunCosts:
    """What is known after runs of one to so many rows."""
    costs = RunCosts()
    for _ in range(3):
        for rows in range(1, most + 1):
            costs.learn(key, rows, seconds(rows), at)
    return costs


def test_all_run_that_are_in_time_together() -> None:
    requests = due(8.0, 9.0, 20.0)
    assert in_time(requests, NOW, seconds) == (requests, [])


def test_fewer_run_if_that_lets_the_oldest_be_in_time() -> None:
    requests = due(8.0, 9.0, 10.0, 11.0)
    assert in_time(requests, NOW, seconds) == (requests[:3], [])


def test_who_would_cost_more_than_half_of_the_batch_is_dropped() -> None:
    requests = due(6.5, 20.0, 20.0, 20.0)
    assert in_time(requests, NOW, seconds) == (requests[1:], requests[:1])


def test_the_one_with_the_least_time_decides_wherever_it_stands() -> None:
    requests = due(NEVER, 20.0, 8.5, 20.0)
    assert in_time(requests, NOW, seconds) == (requests[:3], [])
    requests = due(NEVER, 20.0, 7.0, 20.0)
    assert in_time(requests, NOW, seconds) == (
        [requests[0], requests[1], requests[3]],
        [requests[2]],
    )


@given(
    st.lists(
        st.builds(Request, rows=st.integers(1, 4), deadline=st.floats(101.0, 140.0)), max_size=9
    )
)
def test_whoever_runs_is_in_time_and_nobody_is_both_run_and_dropped(waiting: list[Request]) -> None:
    run, dropped = in_time(waiting, NOW, seconds)
    end = NOW + seconds(sum(request.rows for request in run))
    assert all(must_end(request) >= end for request in run)
    assert not set(map(id, run)) & set(map(id, dropped))
    assert list(run) == [request for request in waiting if request in run]


def test_who_cannot_be_in_time_is_answered_at_once_and_the_next_look_runs_the_rest() -> None:
    late, rest = due(5.5), due(20.0, 20.0)
    decision = next_batch([*late, *rest], NOW, BatchBounds(8), known())
    assert (decision.run, decision.drop) == ((), tuple(late))
    assert next_batch(rest, NOW, BatchBounds(8), known()).run == tuple(rest)


def test_nobody_is_dropped_for_what_was_not_seen_for_a_while() -> None:
    (late,) = due(5.5)
    costs = known(at=NOW - FRESH_S * 1.01)
    assert next_batch([late], NOW, BatchBounds(8), costs).run == (late,)


def test_nobody_is_dropped_for_one_slow_run_and_few_run_until_it_is_clear() -> None:
    costs = known()
    costs.learn("a", 8, 80.0, NOW)
    requests = due(9.0, 20.0, 20.0, 20.0)
    decision = next_batch(requests, NOW, BatchBounds(8), costs)
    assert (decision.run, decision.drop) == ((requests[0],), ())
    costs.learn("a", 1, 36.0, NOW)
    dropped = next_batch(requests, NOW, BatchBounds(8), costs).drop
    assert set(dropped) == set(requests)


def test_an_idle_engine_drops_only_whom_its_quickest_plausible_run_cannot_meet() -> None:
    costs = RunCosts()
    for cost in (6.0, 7.0, 6.0, 7.0):
        costs.learn("a", 1, cost, NOW)
    for left, runs in ((6.9, True), (6.4, True), (4.0, False)):
        (request,) = due(left)
        assert bool(next_batch([request], NOW, BatchBounds(8), costs).run) == runs


def test_costs_of_one_shape_drop_nobody_of_another() -> None:
    (late,) = due(5.5, key="b")
    assert next_batch([late], NOW, BatchBounds(8), known(key="a")).run == (late,)


def test_a_batch_that_follows_another_leaves_out_whom_that_one_makes_late() -> None:
    clock = FakeClock(NOW)
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2), clock)
    for rows in (1, 2) * 3:
        queue.costs.learn("a", rows, seconds(rows) / 10, NOW)
    requests = due(0.9, 2.0, 2.0)
    for request in requests:
        queue.submit(request)
    assert queue.take_full(NOW + 0.6) is None
    decision = queue.take_full()
    assert decision is not None
    assert decision.run == tuple(requests[:2])


@pytest.mark.parametrize("sizes", [(4, 8), (1, 2, 4, 8)])
def test_a_smaller_batch_is_judged_by_the_size_that_it_is_padded_to(sizes: tuple[int, ...]) -> None:
    costs = RunCosts(sizes)
    for size in sizes * 3:
        costs.learn("a", size, seconds(size), NOW)
    requests = due(9.5, *[30.0] * 4)
    decision = next_batch(requests, NOW, BatchBounds(8, 0.0, sizes), costs)
    # Five rows would run as eight.
    assert decision.run == tuple(requests[:4])
