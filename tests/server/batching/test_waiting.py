"""Who waits for company, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.decision import BatchBounds, Decision, next_batch
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.run_costs import RunCosts

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request

DELAY = BatchBounds(4, 5.0)
RUN = 0.1
"""Seconds that every run takes, where that is known."""


def known(key: str = "a", seconds: float = RUN) -> RunCosts:
    """What is known after three equal runs."""
    costs = RunCosts()
    for _ in range(3):
        costs.learn(key, 4, seconds, 0.0)
        costs.learn(key, 1, seconds, 0.0)
    return costs


def test_a_full_batch_runs_whatever_the_first_request_of_another_shape_waits_for() -> None:
    lone = Request(key="b", arrived=0.0)
    full = [Request(arrived=1.0) for _ in range(4)]
    assert next_batch([lone, *full], 1.0, DELAY, RunCosts()).run == tuple(full)
    assert next_batch([lone, *full[:3]], 1.0, DELAY, RunCosts()) == Decision(wake=5.0)


def test_one_large_request_runs_whatever_the_first_request_of_another_shape_waits_for() -> None:
    lone, large = Request(key="b"), Request(rows=4, arrived=1.0)
    assert next_batch([lone, large], 1.0, DELAY, RunCosts()).run == (large,)


def test_a_batch_that_a_deadline_asks_for_runs_whatever_others_wait_for() -> None:
    lone, urgent = Request(key="b", arrived=0.0), Request(arrived=1.0, deadline=1.3)
    costs = known()
    first = next_batch([lone, urgent], 1.0, DELAY, costs)
    assert first.wake == pytest.approx(1.3 - RUN - 0.03)
    assert next_batch([lone, urgent], 1.2, DELAY, costs).run == (urgent,)


def test_a_batch_runs_once_any_of_it_has_waited_long_enough_whatever_its_priority() -> None:
    first, oldest = Request(arrived=3.0), Request(arrived=0.0, level=1)
    assert next_batch([first, oldest], 4.9, DELAY, RunCosts()).wake == 5.0
    assert next_batch([first, oldest], 5.0, DELAY, RunCosts()).run == (first, oldest)


def test_among_those_that_need_not_wait_the_first_is_the_one_that_came_first() -> None:
    old, older = Request(key="b", arrived=1.0), Request(arrived=0.0)
    assert next_batch([older, old], 6.0, DELAY, RunCosts()).run == (older,)


def test_a_full_batch_is_taken_beside_a_running_one_while_another_shape_waits() -> None:
    queue: BatchQueue[Request] = BatchQueue(DELAY, FakeClock(1.0))
    full = [Request(arrived=1.0) for _ in range(4)]
    for request in (Request(key="b", arrived=0.0), *full):
        queue.submit(request)
    decision = queue.take_full()
    assert decision is not None
    assert decision.run == tuple(full)
    assert queue.take_full() is None


@pytest.mark.parametrize("deadline", [0.42, 0.44, 0.46, 0.48, 0.15, 1.0])
def test_a_lone_request_is_in_time_although_a_batch_may_wait_for_company(deadline: float) -> None:
    request = Request(deadline=deadline)
    limits, costs = BatchBounds(4, 0.4), known()
    decision = next_batch([request], 0.0, limits, costs)
    start = decision.wake
    assert start is not None
    assert start <= min(0.4, deadline - RUN)
    assert next_batch([request], start, limits, costs).run == (request,)


def test_of_several_the_one_with_the_least_time_says_when_all_begin() -> None:
    requests = [Request(deadline=9.0), Request(arrived=0.1, deadline=0.5), Request(deadline=7.0)]
    decision = next_batch(requests, 0.1, DELAY, known())
    assert decision.wake == pytest.approx(0.5 - RUN - 0.04)


def test_nobody_with_a_deadline_waits_before_it_is_known_what_a_run_takes() -> None:
    request = Request(deadline=100.0)
    assert next_batch([request], 0.0, DELAY, RunCosts()).run == (request,)
    assert next_batch([request], 0.0, DELAY, known(key="b")).run == (request,)


def test_a_trial_never_leads_and_callers_of_another_shape_wait_as_if_it_were_not_there() -> None:
    trial = Request(key="b", arrived=0.0, trial=True, deadline=50.0)
    callers = [Request(arrived=1.0) for _ in range(4)]
    assert next_batch([trial, *callers], 1.0, DELAY, RunCosts()).run == tuple(callers)
    lone = Request(arrived=1.0, deadline=1.3)
    assert next_batch([trial, lone], 1.2, DELAY, known()).run == (lone,)


def test_a_trial_does_not_wait_for_company() -> None:
    trial = Request(trial=True, arrived=1.0)
    assert next_batch([trial], 1.0, DELAY, RunCosts()).run == (trial,)
    waits = Request(key="b", arrived=1.0)
    # An idle engine can do it while callers wait for company.
    assert next_batch([waits, trial], 1.0, DELAY, RunCosts()).run == (trial,)


def test_a_trial_of_the_callers_shape_joins_their_batch() -> None:
    caller, trial = Request(arrived=0.0), Request(arrived=1.0, trial=True)
    assert next_batch([caller, trial], 5.0, DELAY, RunCosts()).run == (caller, trial)


def test_a_trial_of_the_callers_shape_does_not_wait_with_them() -> None:
    caller, trial = Request(arrived=0.0), Request(arrived=1.0, trial=True)
    assert next_batch([caller, trial], 1.0, DELAY, RunCosts()).run == (trial,)


def test_trials_run_one_at_a_time_lest_they_delay_callers() -> None:
    trials = [Request(arrived=float(index), trial=True) for index in range(3)]
    assert next_batch(trials, 9.0, BatchBounds(4), RunCosts()).run == (trials[0],)


SHAPES = st.sampled_from("abc")


@given(
    st.lists(
        st.builds(
            Request,
            rows=st.integers(1, 4),
            key=SHAPES,
            arrived=st.floats(0.0, 5.0),
            deadline=st.none() | st.floats(6.0, 30.0),
            trial=st.booleans(),
        ),
        min_size=1,
        max_size=10,
    ),
    st.floats(0.0, 10.0),
    st.dictionaries(SHAPES, st.floats(0.001, 8.0)),
)
def test_nothing_is_idle_while_a_batch_may_run(
    waiting: list[Request], delay: float, seconds: dict[str, float]
) -> None:
    waiting.sort(key=lambda request: request.arrived)
    costs = RunCosts()
    for shape, cost in seconds.items():
        for _ in range(3):
            costs.learn(shape, 1, cost, 5.0)
    decision = next_batch(waiting, 5.0, BatchBounds(4, delay), costs)
    if not decision.run and not decision.drop:
        # Everybody waits, for a reason of his own.
        assert decision.wake is not None
        for request in waiting:
            assert not request.trial
            assert request.arrived + delay > 5.0
