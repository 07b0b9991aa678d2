"""What runs next."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.decision import BatchBounds, Decision, expired, next_batch

from tests.server.batching.requests import Request, requests

NOW = st.integers(0, 60).map(float)
LIMITS = st.builds(BatchBounds, st.integers(1, 8), st.integers(0, 10).map(float))


def live(waiting: list[Request], now: float) -> list[Request]:
    return [r for r in waiting if not r.cancelled and not expired(r, now)]


@given(requests(), NOW, LIMITS)
def test_the_oldest_live_request_leads_and_its_like_follow_in_order(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    decision = next_batch(waiting, now, limits)
    if decision.run:
        leader = live(waiting, now)[0]
        same = [r for r in live(waiting, now) if r.key == leader.key]
        assert list(decision.run) == same[: len(decision.run)]


@given(requests(), NOW, LIMITS)
def test_a_batch_is_never_too_big_unless_one_request_is(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    run = next_batch(waiting, now, limits).run
    assert sum(r.rows for r in run) <= limits.max_rows or len(run) == 1


@given(requests(), NOW, LIMITS)
def test_a_batch_is_as_big_as_it_can_be(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    run = next_batch(waiting, now, limits).run
    if run:
        same = [r for r in live(waiting, now) if r.key == run[0].key]
        following = same[len(run) :]
        rows = sum(r.rows for r in run)
        assert not following or rows + following[0].rows > limits.max_rows


@given(requests(), NOW, LIMITS)
def test_the_dead_never_run_and_are_dropped_when_passed(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    decision = next_batch(waiting, now, limits)
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
    decision = next_batch(waiting, now, limits)
    alive = live(waiting, now)
    assert bool(decision.run) != (decision.wake is not None) or not alive
    if decision.wake is not None:
        assert decision.wake == alive[0].arrived + limits.max_delay > now
        leader = alive[0]
        # Nobody who would be in this batch expires before it.
        assert not expired(leader, decision.wake)
        assert leader in next_batch(waiting, decision.wake, limits).run
    if not alive:
        assert decision == Decision(drop=tuple(waiting))


@given(requests(), NOW, LIMITS)
def test_the_same_input_gives_the_same_decision_and_stays_as_it_was(
    waiting: list[Request], now: float, limits: BatchBounds
) -> None:
    before = copy.deepcopy([vars(r) for r in waiting])
    assert next_batch(waiting, now, limits) == next_batch(iter(waiting), now, limits)
    assert [vars(r) for r in waiting] == before


def test_a_short_batch_waits_for_company() -> None:
    waiting = [Request(arrived=1.0), Request(arrived=2.0)]
    assert next_batch(waiting, 3.0, BatchBounds(4, 5.0)) == Decision(wake=6.0)
    assert next_batch(waiting, 6.0, BatchBounds(4, 5.0)).run == tuple(waiting)


@pytest.mark.parametrize("rows", [[4], [2, 2], [3, 2], [9]])
def test_a_full_batch_does_not_wait(rows: list[int]) -> None:
    waiting = [Request(rows=n) for n in rows]
    assert next_batch(waiting, 0.0, BatchBounds(4, 5.0)).run


def test_a_request_of_another_shape_does_not_fill_the_batch() -> None:
    waiting = [Request(rows=1), Request(rows=4, key="b")]
    assert next_batch(waiting, 0.0, BatchBounds(4, 5.0)) == Decision(wake=5.0)


def test_a_request_is_not_held_back_until_it_expires() -> None:
    waiting = [Request(), Request(deadline=4.0)]
    assert next_batch(waiting, 3.0, BatchBounds(4, 5.0)).run == tuple(waiting)
    assert next_batch([Request(deadline=6.0)], 3.0, BatchBounds(4, 5.0)).wake == 5.0


def test_a_request_expires_at_its_deadline() -> None:
    request = Request(deadline=3.0)
    assert next_batch([request], 2.9, BatchBounds(4)).run == (request,)
    assert next_batch([request], 3.0, BatchBounds(4)).drop == (request,)


def test_nothing_waits_for_nothing() -> None:
    assert next_batch([], 0.0, BatchBounds(4, 5.0)) == Decision()
