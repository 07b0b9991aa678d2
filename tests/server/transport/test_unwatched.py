"""Which calls are worth watching, and when."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from inferd_server.transport.completion_queue.unwatched import AGE_S, Unwatched

from tests.fakes.clock import FakeClock


@dataclass
class Call:
    """A double for a call."""

    answered: bool = False


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_call_is_found_before_it_is_twice_as_old_as_worth_watching(clock: FakeClock) -> None:
    unwatched: Unwatched[Call] = Unwatched(clock)
    call = Call()
    unwatched.add(call)
    assert list(unwatched.take()) == []
    clock.advance(AGE_S)
    assert list(unwatched.take()) == []
    clock.advance(AGE_S)
    assert list(unwatched.take()) == [call]
    clock.advance(AGE_S)
    assert list(unwatched.take()) == []


def test_an_answered_call_is_not_found(clock: FakeClock) -> None:
    unwatched: Unwatched[Call] = Unwatched(clock)
    young, old = Call(), Call()
    unwatched.add(old)
    clock.advance(AGE_S)
    unwatched.take()
    unwatched.add(young)
    young.answered = old.answered = True
    clock.advance(AGE_S)
    assert list(unwatched.take()) == []
    assert list(unwatched.rest()) == []


def test_a_wait_ends_in_time_for_those_that_are_left(clock: FakeClock) -> None:
    unwatched: Unwatched[Call] = Unwatched(clock)
    assert unwatched.wait(None) is None
    assert unwatched.wait(1.0) == 1.0
    unwatched.add(Call())
    assert unwatched.wait(None) == AGE_S
    assert unwatched.wait(1.0) == AGE_S
    assert unwatched.wait(0.0) == 0.0


def test_the_rest_is_all_that_waits(clock: FakeClock) -> None:
    unwatched: Unwatched[Call] = Unwatched(clock)
    first, second = Call(), Call()
    unwatched.add(first)
    clock.advance(AGE_S)
    unwatched.take()
    unwatched.add(second)
    assert list(unwatched.rest()) == [first, second]
    assert unwatched.wait(None) is None
