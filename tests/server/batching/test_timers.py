"""Deadlines that come, whoever is busy."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.slots import Arena
from inferd_server.batching.timers import Timers
from inferd_server.errors import Cancelled

from tests.fakes.clock import FakeClock
from tests.server.callers import job_of

WITHIN = 30.0
KEPT = 1024


def nothing() -> None:
    raise AssertionError("it was answered")


@given(st.lists(st.integers(0, 20).map(float)), st.integers(0, 21).map(float))
def test_everything_that_is_due_is_called_once_in_order(deadlines: list[float], now: float) -> None:
    clock = FakeClock(-1.0)
    alarms = Timers(clock, threaded=False)
    called: list[float] = []
    for deadline in deadlines:
        alarms.at(deadline, lambda deadline=deadline: called.append(deadline))
    clock.advance(now + 1.0)
    alarms.ring()
    assert called == sorted(deadline for deadline in deadlines if deadline <= now)
    before = len(called)
    alarms.ring()
    assert len(called) == before
    clock.advance(100.0)
    alarms.ring()
    assert called == sorted(deadlines)


def test_who_has_an_answer_is_left_alone() -> None:
    clock = FakeClock()
    alarms, arena = Timers(clock, threaded=False), Arena(4, 1000)
    early, late = job_of(arena, [1.0]), job_of(arena, [2.0])
    early.watch(alarms.at(5.0, nothing))
    early.fail(Cancelled("gone"))
    # Answered before anybody could tell it of the alarm.
    late.fail(Cancelled("gone"))
    late.watch(alarms.at(5.0, nothing))
    clock.advance(9.0)
    assert alarms.ring() is None


def test_those_with_an_answer_do_not_pile_up() -> None:
    alarms, arena = Timers(FakeClock(), threaded=False), Arena(10 * KEPT, 10**7)
    waiting = 0
    for number in range(5 * KEPT):
        job = job_of(arena, [1.0])
        job.watch(alarms.at(1e6, nothing))
        if number % 10:
            job.fail(Cancelled("gone"))
        else:
            waiting += 1
    assert len(alarms._heap) <= 2 * KEPT
    assert sum(entry[2].callback is not None for entry in alarms._heap) == waiting


def test_a_deadline_comes_while_later_ones_are_waited_for() -> None:
    alarms = Timers(time.monotonic)
    came = threading.Event()
    start = time.monotonic()
    alarms.at(start + 1000.0, nothing)
    alarms.at(start + 0.01, came.set)
    assert came.wait(WITHIN)
    assert time.monotonic() >= start + 0.01
    alarms.close()
