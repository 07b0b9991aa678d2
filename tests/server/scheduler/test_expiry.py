"""Deadlines that come, whoever is busy."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from inferd_server.scheduler.expiry import KEPT, Expiry

from tests.fakes.clock import FakeClock

WITHIN = 30.0


@dataclass
class Request:
    """As much as is asked of one."""

    answered: bool = False


def nothing() -> None:
    raise AssertionError("it was answered")


@given(st.lists(st.integers(0, 20).map(float)), st.integers(0, 21).map(float))
def test_everything_that_is_due_is_called_once_in_order(deadlines: list[float], now: float) -> None:
    expiry = Expiry(FakeClock(-1.0))
    called: list[float] = []
    for deadline in deadlines:
        expiry.watch(deadline, Request(), lambda deadline=deadline: called.append(deadline))
    for then in expiry.due(now):
        then()
    assert called == sorted(deadline for deadline in deadlines if deadline <= now)
    assert expiry.due(now) == []
    assert len(expiry.due(100.0)) == len(deadlines) - len(called)


def test_who_has_an_answer_is_left_alone() -> None:
    expiry = Expiry(FakeClock())
    expiry.watch(5.0, Request(answered=True), nothing)
    assert expiry.due(9.0) == []


def test_those_with_an_answer_do_not_pile_up() -> None:
    expiry = Expiry(FakeClock())
    waiting = 0
    for number in range(5 * KEPT):
        open_still = number % 10 == 0
        waiting += open_still
        expiry.watch(1e6, Request(answered=not open_still), nothing)
    assert len(expiry._waiting) <= 2 * KEPT
    assert sum(not entry[2].answered for entry in expiry._waiting) == waiting


def test_a_deadline_comes_while_later_ones_are_waited_for() -> None:
    expiry = Expiry(time.monotonic)
    came = threading.Event()
    start = time.monotonic()
    expiry.watch(start + 1000.0, Request(), nothing)
    expiry.watch(start + 0.01, Request(), came.set)
    assert came.wait(WITHIN)
    assert time.monotonic() >= start + 0.01
