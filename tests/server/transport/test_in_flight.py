"""Bytes in flight are counted once and given back once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inferd_server.errors import InvalidInput, MemoryBudgetExceeded
from inferd_server.transport.in_flight import InFlightBytes, Unanswered, UnsentBytes


def test_what_fits_exactly_is_taken_and_one_byte_more_is_not() -> None:
    in_flight = InFlightBytes(10)
    assert in_flight.take(6)
    assert not in_flight.take(5)
    assert in_flight.take(4)
    assert in_flight.held == 10
    assert in_flight.take(0)


def test_a_refusal_names_the_request_the_bytes_the_limit_and_the_setting() -> None:
    in_flight = InFlightBytes(1000)
    in_flight.take(600)
    text = str(in_flight.refusal(500))
    assert all(word in text for word in ("500", "600", "1000", "max_in_flight_bytes"))


def test_what_can_never_fit_is_the_callers_mistake_and_no_lack_of_room() -> None:
    in_flight = InFlightBytes(1000)
    assert isinstance(in_flight.refusal(1000), MemoryBudgetExceeded)
    assert isinstance(in_flight.refusal(1001), InvalidInput)


def test_an_answer_counts_for_the_oldest_message() -> None:
    in_flight = InFlightBytes(100)
    unanswered = Unanswered(in_flight, 2)
    assert unanswered.received(10)
    assert unanswered.received(20)
    assert unanswered.full
    unanswered.answered()
    assert in_flight.held == 20
    assert not unanswered.full


def test_a_message_without_room_is_not_counted() -> None:
    in_flight = InFlightBytes(15)
    unanswered = Unanswered(in_flight, 2)
    assert unanswered.received(10)
    assert not unanswered.received(10)
    assert not unanswered.full
    unanswered.over()
    assert in_flight.held == 0


STEPS = st.lists(st.one_of(st.integers(0, 50), st.sampled_from(["answered", "over"])))


@given(streams=st.lists(STEPS, max_size=4), limit=st.integers(0, 100))
def test_whatever_happens_to_streams_nothing_is_held_at_their_end(
    streams: list[list[int | str]], limit: int
) -> None:
    in_flight = InFlightBytes(limit)
    for steps in streams:
        unanswered = Unanswered(in_flight, 3)
        for step in steps:
            if isinstance(step, int):
                unanswered.received(step)
            elif step == "answered":
                unanswered.answered()
            else:
                unanswered.over()
            assert 0 <= in_flight.held <= limit
        unanswered.over()
        assert in_flight.held == 0


def test_answers_that_wait_for_their_turn_find_room_below_the_bound_of_all() -> None:
    unsent = UnsentBytes(100)
    assert unsent.take(60)
    assert unsent.queue(40)
    assert not unsent.queue(1)
    assert unsent.held == 100
    unsent.unqueue(40)
    unsent.give(60)
    assert unsent.held == 0


def test_who_is_awaited_finds_room_whatever_waits_for_it() -> None:
    unsent = UnsentBytes(100)
    assert unsent.queue(90)
    assert unsent.take(90)
    assert not unsent.take(90)
    assert "max_unsent_bytes" in str(unsent.refusal(90))


def test_one_answer_alone_may_wait_however_large_it_is() -> None:
    unsent = UnsentBytes(100)
    assert unsent.queue(1000)
    assert not unsent.queue(1)
