"""What one caller may take is counted by its identity, in time and in flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.security.identity import Identity
from inferd_server.security.limits import BUSY_RETRY_S, Bucket, CallerLimits, take

from tests.fakes.clock import FakeClock

FREE = Identity("free", frozenset())
TWICE = Identity("twice", frozenset(), max_in_flight=2)
PACED = Identity("paced", frozenset(), requests_per_second=4.0)
SLOW = Identity("slow", frozenset(), requests_per_second=0.25)


@given(rate=st.floats(0.01, 1000.0), pauses=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60))
def test_over_any_time_no_more_is_taken_than_the_rate_and_a_seconds_worth(
    rate: float, pauses: list[float]
) -> None:
    bucket, now, taken = Bucket(max(1.0, rate), 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        bucket, wait = take(bucket, rate, now)
        taken += wait == 0.0
    assert taken <= max(1.0, rate) + rate * now + 1e-6


@given(rate=st.floats(0.01, 1000.0), level=st.floats(0.0, 0.99))
def test_after_the_wait_that_was_told_there_is_one(rate: float, level: float) -> None:
    bucket, wait = take(Bucket(level, 5.0), rate, 5.0)
    assert wait > 0.0
    assert take(bucket, rate, 5.0 + wait * (1 + 1e-9) + 1e-9)[1] == 0.0


def test_a_caller_without_limits_is_never_refused() -> None:
    limits = CallerLimits(FakeClock())
    assert {limits.enter(FREE) for _ in range(1000)} == {None}


def test_more_than_a_seconds_worth_is_refused_until_time_passed() -> None:
    clock = FakeClock()
    limits = CallerLimits(clock)
    assert [limits.enter(PACED) for _ in range(4)] == [None] * 4
    refusal = limits.enter(PACED)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after) == ("RATE_LIMIT", 0.25)
    assert refusal.facts == {"identity": "paced", "limit": "4"}
    assert str(refusal) == "'paced' may have 4 requests a second"
    clock.advance(0.25)
    assert limits.enter(PACED) is None
    assert limits.enter(PACED) is not None


def test_less_than_one_a_second_is_one_at_a_time() -> None:
    clock = FakeClock()
    limits = CallerLimits(clock)
    assert limits.enter(SLOW) is None
    refusal = limits.enter(SLOW)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(4.0)


def test_a_place_in_flight_is_free_again_once_it_was_left() -> None:
    limits = CallerLimits(FakeClock())
    assert limits.enter(TWICE) is limits.enter(TWICE) is None
    refusal = limits.enter(TWICE)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after) == ("IN_FLIGHT_LIMIT", BUSY_RETRY_S)
    assert str(refusal) == "'twice' may have 2 requests in flight"
    limits.leave(TWICE)
    assert limits.enter(TWICE) is None
    assert limits.enter(TWICE) is not None


def test_callers_do_not_take_from_each_other() -> None:
    limits = CallerLimits(FakeClock())
    other = Identity("other", frozenset(), max_in_flight=1, requests_per_second=1.0)
    assert [limits.enter(who) for who in (TWICE, TWICE, other)] == [None] * 3
    assert limits.enter(other) is not None
    assert limits.enter(FREE) is None


def test_a_request_refused_for_one_reason_takes_nothing_of_the_other() -> None:
    clock = FakeClock()
    limits = CallerLimits(clock)
    both = Identity("both", frozenset(), max_in_flight=1, requests_per_second=1.0)
    assert limits.enter(both) is None
    for _ in range(5):
        assert limits.enter(both) is not None
    limits.leave(both)
    clock.advance(1.0)
    assert limits.enter(both) is None
