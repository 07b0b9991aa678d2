"""What is learned of the time that runs take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.latency import PROBE_S, SAMPLES, Costs, Forecast
from inferd_server.monitoring.phases import Execution


def learned(*runs: tuple[int, float]) -> Costs:
    costs = Costs()
    for rows, seconds in runs:
        costs.learn(rows, seconds)
    return costs


def test_nothing_is_known_before_anything_ran() -> None:
    assert Costs().seconds(4) == 0.0


def test_a_disturbed_run_does_not_matter() -> None:
    costs = learned(*[(4, 0.1)] * 8, (4, 50.0), (4, 60.0))
    assert costs.seconds(4) == 0.1


def test_a_lasting_change_is_learned() -> None:
    costs = learned(*[(4, 0.1)] * SAMPLES, *[(4, 0.3)] * (SAMPLES // 2 + 1))
    assert costs.seconds(4) == 0.3


@pytest.mark.parametrize(
    ("rows", "seconds"), [(0, 0.0), (1, 1.0), (2, 3.0), (3, 3.0), (4, 3.0), (8, 6.0), (16, 12.0)]
)
def test_other_sizes_follow_from_those_that_ran(rows: int, seconds: float) -> None:
    assert learned((1, 1.0), (4, 3.0)).seconds(rows) == seconds


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 1.0))))
def test_more_rows_never_take_less(runs: list[tuple[int, float]]) -> None:
    costs = learned(*runs)
    times = [costs.seconds(rows) for rows in range(80)]
    assert times == sorted(times)


def run_of(rows: int, seconds: float) -> Execution:
    return Execution(rows, 0.0, 0.0, seconds)


class Known:
    """A forecast of batches of 4 rows that take 1 s, learned at 100 s."""

    def __init__(self, instances: int = 1) -> None:
        self.forecast = Forecast(4, instances)
        self.forecast.learn(run_of(1, 0.4), 99.0)
        self.forecast.learn(run_of(4, 1.0), 100.0)

    def expect(self, rows: int, held: int, now: float = 100.0) -> tuple[float, float]:
        found = self.forecast.expect(rows, held, now)
        assert found is not None
        return found.wait, found.run


def test_an_idle_model_makes_nobody_wait() -> None:
    assert Known().expect(1, 0) == (0.0, 0.4)


def test_who_comes_late_waits_for_all_batches_before() -> None:
    assert Known().expect(1, 12) == (3.0, 1.0)
    assert Known(instances=2).expect(1, 12) == (1.5, 1.0)


def test_the_batch_that_runs_has_been_at_it_for_a_while() -> None:
    wait, run = Known().expect(1, 4, now=100.75)
    assert (round(wait, 9), run) == (0.25, 1.0)
    assert Known().expect(1, 4, now=108.0) == (0.0, 1.0)


def test_what_was_learned_long_ago_refuses_nobody() -> None:
    known = Known()
    assert known.forecast.expect(1, 400, 100.0 + max(PROBE_S, 10.0) + 0.1) is None
    assert Forecast(4).expect(1, 400, 0.0) is None


def test_a_run_is_learned_once_however_many_requests_it_answered() -> None:
    forecast = Forecast(4)
    for _ in range(20):
        forecast.learn(run_of(4, 9.0), 1.0)
    for seconds in (1.0, 1.1):
        forecast.learn(run_of(4, seconds), 2.0)
    found = forecast.expect(4, 0, 2.0)
    assert found is not None
    assert found.run == 1.1


@given(
    st.lists(st.tuples(st.integers(1, 8), st.floats(0.001, 2.0)), min_size=1),
    st.integers(1, 8),
    st.integers(0, 60),
    st.floats(0.0, 60.0),
)
def test_the_first_look_lets_nobody_through_whom_the_second_would_refuse(
    runs: list[tuple[int, float]], rows: int, held: int, slack: float
) -> None:
    forecast = Forecast(8)
    for size, seconds in runs:
        forecast.learn(run_of(size, seconds), 5.0)
    expected = forecast.expect(rows, held, 5.0)
    assert expected is not None
    if expected.latest > slack:
        assert forecast.presses(slack, held)
