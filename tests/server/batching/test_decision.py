"""What runs next."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.decision import BatchBounds, Decision, expired, next_batch
from inferd_server.batching.run_costs import RunCosts

from tests.server.batching.requests import Request, requests

NOW = st.integers(0, 60).map(float)
LIMITS = st.builds(BatchBounds, st.integers(1, 8), st.integers(0, 10).map(float))


def live(waiting: list[Request], now: float) -> list[Request]:
    return [r for r in waiting if not r.cancelled and not expired(r, now)]


@given(requests(), NOW, LIMITS)
def test_a_batch_is_of_one_shape_in_order_and_passes_over_nobody_who_need_not_wait(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    decision = next_batch(waiting, now, limits, RunCosts())
    if decision.run:
        leader = decision.run[0]
        same = [r for r in live(waiting, now) if r.key == leader.key]
        assert list(decision.run) == same[: len(decision.run)]
        for passed in live(waiting, now)[: live(waiting, now).index(leader)]:
            # A wait for company is the only reason.
            assert now < passed.arrived + limits.max_delay


@given(requests(), NOW, LIMITS)
def test_a_batch_is_never_too_big_unless_one_request_is(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    run = next_batch(waiting, now, limits, RunCosts()).run
    assert sum(r.rows for r in run) <= limits.max_rows or len(run) == 1


@given(requests(), NOW, LIMITS)
def test_a_batch_is_as_big_as_it_can_be(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    run = next_batch(waiting, now, limits, RunCosts()).run
    if run:
        same = [r for r in live(waiting, now) if r.key == run[0].key]
        following = same[len(run) :]
        rows = sum(r.rows for r in run)
        assert not following or rows + following[0].rows > limits.max_rows


@given(requests(), NOW, LIMITS)
def test_the_dead_never_run_and_are_dropped_when_passed(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    decision = next_batch(waiting, now, limits, RunCosts())
    dead = [r for r in waiting if r.cancelled or expired(r, now)]
    assert not set(decision.run) & set(dead)
    assert set(decision.drop) <= set(dead)
    if decision.run:
        last = waiting.index(decision.run[-1])
        dead = [r for r in waiting[:last] if r in dead]
    assert set(dead) <= set(decision.drop)


@given(requests(), NOW, LIMITS)
def test_who_waits_is_woken_in_time(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    decision = next_batch(waiting, now, limits, RunCosts())
    alive = live(waiting, now)
    assert bool(decision.run) != (decision.wake is not None) or not alive
    if decision.wake is not None:
        assert decision.wake == min(r.arrived for r in alive) + limits.max_delay > now
        # Nobody expires before it, and somebody runs then.
        assert not any(expired(r, decision.wake) for r in alive)
        assert next_batch(waiting, decision.wake, limits, RunCosts()).run
    if not alive:
        assert decision == Decision(drop=tuple(waiting))


@given(requests(), NOW, LIMITS)
def test_the_same_input_gives_the_same_decision_and_stays_as_it_was(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    before = copy.deepcopy([vars(r) for r in waiting])
    assert next_batch(waiting, now, limits, RunCosts()) == next_batch(
        iter(waiting), now, limits, RunCosts()
    )
    assert [vars(r) for r in waiting] == before


def test_a_short_batch_waits_for_company() -> None:
    waiting = [Request(arrived=1.0), Request(arrived=2.0)]
    assert next_batch(waiting, 3.0, BatchBounds(4, 5.0), RunCosts()) == Decision(wake=6.0)
    assert next_batch(waiting, 6.0, BatchBounds(4, 5.0), RunCosts()).run == tuple(waiting)


@pytest.mark.parametrize("rows", [[4], [2, 2], [3, 2], [9]])
def test_a_full_batch_does_not_wait(rows: list[int]) -> None:
    waiting = [Request(rows=n) for n in rows]
    assert next_batch(waiting, 0.0, BatchBounds(4, 5.0), RunCosts()).run


def test_a_request_expires_at_its_deadline() -> None:
    request = Request(deadline=3.0)
    assert next_batch([request], 2.9, BatchBounds(4), RunCosts()).run == (request,)
    assert next_batch([request], 3.0, BatchBounds(4), RunCosts()).drop == (request,)


def test_nothing_waits_for_nothing() -> None:
    assert next_batch([], 0.0, BatchBounds(4, 5.0), RunCosts()) == Decision()
