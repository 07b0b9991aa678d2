"""What is learned of the time that runs take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.run_costs import FRESH_S, SHAPES, Alone, RunCosts, ShapeCosts


def learned(*runs: tuple[int, float], sizes: tuple[int, ...] = ()) -> ShapeCosts:
    costs = ShapeCosts(sizes)
    for rows, seconds in runs:
        costs.learn(rows, seconds, 0.0)
    return costs


def test_nothing_is_certain_before_several_runs_agree() -> None:
    assert learned().likely(4) == 0.0
    assert learned((1, 3.0)).least(1) == 0.0
    assert not learned((1, 3.0)).certain(0.0)
    assert learned((1, 3.0), (1, 3.1)).certain(0.0)
    assert learned((1, 3.0), (1, 3.1)).least(1) == pytest.approx(3.0, rel=0.05)


def test_one_slow_first_run_is_forgotten_with_the_next() -> None:
    costs = learned((1, 3.0), (1, 0.01))
    assert costs.least(1) == 0.0
    costs.learn(1, 0.01, 0.0)
    assert costs.likely(1) == pytest.approx(0.01, rel=0.1)


def test_one_slow_run_among_many_makes_doubtful_and_the_next_one_certain_again() -> None:
    costs = learned(*[(4, 0.1)] * 5, (4, 5.0))
    assert not costs.certain(0.0)
    assert costs.least(4) == pytest.approx(0.1, rel=0.2)
    costs.learn(4, 0.1, 0.0)
    assert costs.certain(0.0)
    assert costs.typical(4) < 0.3
    # Some runs are slow: waits for company leave room for one.
    assert costs.likely(4) > 1.0


def test_two_slow_runs_are_a_change_and_one_quick_one_ends_it() -> None:
    costs = learned(*[(4, 0.1)] * 5, (4, 0.8), (4, 0.8))
    assert costs.certain(0.0)
    assert costs.likely(4) == pytest.approx(0.8, rel=0.4)
    # Nobody is refused on arrival before the quick runs are far enough behind.
    assert costs.least(4) < 0.2
    costs.learn(4, 0.1, 0.0)
    assert costs.least(4) == 0.0


def test_a_slower_engine_is_seen_for_all_sizes_by_runs_of_one() -> None:
    costs = learned(*[(1, 0.01), (8, 0.02)] * 10, *[(1, 0.08)] * 8)
    assert costs.likely(8) == pytest.approx(0.16, rel=0.5)


@pytest.mark.parametrize(
    ("rows", "seconds"), [(1, 1.0), (2, 1.5), (3, 2.0), (5, 3.0), (8, 3.0), (16, 3.0), (40, 7.5)]
)
def test_other_sizes_follow_from_those_that_ran_and_twice_as_many_rows_are_tried(
    rows: int, seconds: float
) -> None:
    costs = learned(*[(1, 1.0), (5, 3.0), (8, 3.0)] * 3)
    assert costs.likely(rows) == pytest.approx(seconds)


def test_rows_that_the_engine_pads_cost_what_they_are_padded_to() -> None:
    costs = learned((3, 1.0), (4, 1.0), (3, 1.0), sizes=(4, 8))
    assert costs.likely(1) == costs.likely(4) == pytest.approx(1.0)


def test_what_was_not_seen_for_a_while_is_certain_no_more() -> None:
    costs = learned((1, 3.0), (1, 3.0))
    assert costs.certain(FRESH_S)
    assert not costs.certain(FRESH_S * 1.01)


RUNS = st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 100.0)), max_size=40)


@given(RUNS, st.integers(1, 100), st.integers(1, 100))
def test_more_rows_never_take_less(runs: list[tuple[int, float]], one: int, other: int) -> None:
    costs = learned(*runs)
    fewer, more = sorted((one, other))
    assert costs.likely(fewer) <= costs.likely(more) * (1 + 1e-9)
    assert costs.least(fewer) <= costs.least(more) * (1 + 1e-9)
    assert costs.least(more) <= costs.likely(more) * (1 + 1e-9)


def test_shapes_are_told_apart_and_only_so_many_are_remembered() -> None:
    costs = RunCosts()
    for shape in range(SHAPES + 1):
        costs.learn(shape, 1, 1.0 + shape, 0.0)
        costs.learn("often", 1, 0.5, 0.0)
    assert costs.of("often").likely(1) == pytest.approx(0.5)
    assert costs.of(SHAPES).likely(1) == 1.0 + SHAPES
    assert costs.of(0).likely(1) == 0.0


def test_runs_of_requests_that_share_none_tell_of_their_shape_and_push_no_other_out() -> None:
    costs = RunCosts()
    costs.learn("other", 1, 2.0, 0.0)
    for _ in range(SHAPES + 1):
        costs.learn(Alone("a"), 1, 1.0, 0.0)
    assert costs.of(Alone("a")).least(1) == costs.of("a").least(1) == 1.0
    assert costs.of("other").likely(1) == 2.0
    assert Alone("a") != Alone("a")


def test_the_longest_run_of_late_is_forgotten_by_later_ones() -> None:
    costs = RunCosts()
    costs.learn("a", 1, 5.0, 0.0)
    for step in range(50):
        costs.learn("a", 1, 0.1, step / 10)
    assert costs.longest == 0.1
