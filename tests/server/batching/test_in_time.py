"""Who runs, who waits and who is dropped, so that those who run are in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.batch_size import NEVER, in_time, must_end
from inferd_server.batching.decision import BatchBounds, next_batch
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.run_costs import FRESH_S, RUNS, RunCosts

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
    assert in_time(requests, NOW, seconds, seconds) == (requests, [])


def test_fewer_run_if_that_lets_the_oldest_be_in_time() -> None:
    requests = due(8.0, 9.0, 10.0, 11.0)
    assert in_time(requests, NOW, seconds, seconds) == (requests[:3], [])


def test_if_some_stand_back_so_few_run_that_the_oldest_is_in_time_in_a_slow_run_too() -> None:
    requests = due(8.0, 9.0, 10.0, 11.0)
    assert in_time(requests, NOW, seconds, lambda rows: 1.1 * seconds(rows)) == (requests[:2], [])
    assert in_time(requests[:3], NOW, seconds, lambda rows: 2 * seconds(rows)) == (requests[:3], [])


def test_who_would_cost_more_than_half_of_the_batch_is_dropped() -> None:
    requests = due(6.5, 20.0, 20.0, 20.0)
    assert in_time(requests, NOW, seconds, seconds) == (requests[1:], requests[:1])


def test_the_one_with_the_least_time_decides_wherever_it_stands() -> None:
    requests = due(NEVER, 20.0, 8.5, 20.0)
    assert in_time(requests, NOW, seconds, seconds) == (requests[:3], [])
    requests = due(NEVER, 20.0, 7.0, 20.0)
    assert in_time(requests, NOW, seconds, seconds) == (
        [requests[0], requests[1], requests[3]],
        [requests[2]],
    )


@given(
    st.lists(
        st.builds(Request, rows=st.integers(1, 4), deadline=st.floats(101.0, 140.0)), max_size=9
    )
)
def test_whoever_runs_is_in_time_and_nobody_is_both_run_and_dropped(waiting: list[Request]) -> None:
    run, dropped = in_time(waiting, NOW, seconds, seconds)
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
    for _ in range(RUNS):
        costs.learn("a", 1, 48.0, NOW)
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


@pytest.mark.parametrize(("free_at", "runs"), [(NOW + 0.6, (2, 1)), (0.0, (0, 1))])
def test_a_batch_that_follows_another_leaves_out_whom_that_one_makes_late(
    free_at: float, runs: tuple[int, int]
) -> None:
    queue: BatchQueue[Request] = BatchQueue(BatchBounds(2), FakeClock(NOW))
    for rows in (1, 2) * 3:
        queue.costs.learn("a", rows, seconds(rows) / 10, NOW)
    requests = due(0.9, 2.0, 2.0)
    for request in requests:
        queue.submit(request)
    decision = queue.take_full(free_at)
    assert decision is not None
    assert decision.run == tuple(requests[index] for index in runs)
    assert decision.drop == (() if runs[0] == 0 else (requests[0],))


@pytest.mark.parametrize("sizes", [(4, 8), (1, 2, 4, 8)])
def test_a_smaller_batch_is_judged_by_the_size_that_it_is_padded_to(sizes: tuple[int, ...]) -> None:
    costs = RunCosts(sizes)
    for size in sizes * 3:
        costs.learn("a", size, seconds(size), NOW)
    requests = due(9.5, *[30.0] * 4)
    decision = next_batch(requests, NOW, BatchBounds(8, 0.0, sizes), costs)
    # Five rows would run as eight.
    assert decision.run == tuple(requests[:4])


def of_pairs(key: str = "a") -> RunCosts:
    """What is known after runs of two rows."""
    costs = RunCosts()
    for _ in range(3):
        costs.learn(key, 2, 6.0, NOW)
    return costs


PAIRS = BatchBounds(2, levels=2, delays=True)


def test_in_a_crowd_who_has_little_time_gives_way_to_who_has_more() -> None:
    hasty, ample, other, last = due(6.5, 20.0, 21.0, 22.0)
    decision = next_batch([hasty, ample, other, last], NOW, PAIRS, of_pairs())
    assert (decision.run, decision.drop) == ((other, ample), (hasty,))
    assert decision.full


def test_who_is_as_hasty_and_stands_behind_is_not_overtaken_but_goes_too() -> None:
    hasty, ample, second, other = due(6.5, 20.0, 6.6, 22.0)
    decision = next_batch([hasty, ample, second, other], NOW, PAIRS, of_pairs())
    assert (decision.run, decision.drop) == ((other, ample), (hasty, second))


def test_nobody_gives_way_for_an_empty_place_or_in_doubt() -> None:
    hasty, ample, other = due(6.5, 20.0, 21.0)
    for waiting, costs in (
        ([hasty, ample], of_pairs()),
        ([hasty, ample, other], of_pairs(key="b")),
    ):
        decision = next_batch(waiting, NOW, PAIRS, costs)
        assert (decision.run, decision.drop) == ((hasty, ample), ())
    assert next_batch([hasty, other], NOW, BatchBounds(8), of_pairs()).run == (hasty, other)


@pytest.mark.parametrize(
    "other",
    [
        Request(arrived=99.5, deadline=130.0, level=1),
        Request(arrived=99.5, deadline=130.0, key="b"),
        Request(arrived=99.5, deadline=130.0, rows=2),
        Request(arrived=99.5, deadline=130.0, trial=True),
        Request(arrived=99.5, deadline=130.0, cancelled=True),
        Request(arrived=99.5, deadline=130.0, delay_at=99.9),
        Request(arrived=99.5, deadline=106.6),
    ],
    ids=["lower priority", "shape", "rows", "trial", "cancelled", "delayed", "no more time"],
)
def test_a_place_goes_only_to_a_caller_who_can_use_it_and_is_no_less_entitled(
    other: Request,
) -> None:
    hasty, ample = due(6.5, 20.0)
    decision = next_batch([hasty, ample, other], NOW, PAIRS, of_pairs())
    assert (decision.run, decision.drop) == ((hasty, ample), ())


def test_a_step_of_a_sequence_never_gives_way_because_that_would_end_its_sequence() -> None:
    waiting = due(6.5, 20.0, 21.0)
    bounds = BatchBounds(2, sequences=True)
    assert next_batch(waiting, NOW, bounds, of_pairs()).run == tuple(waiting[:2])
