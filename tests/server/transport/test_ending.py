"""How long the end of a transport takes."""

from __future__ import annotations

from collections import deque

from inferd_server.transport.ending import (
    ARRIVE_EVENTS,
    ARRIVE_LOOKS,
    LINGER_S,
    MISSES,
    QUIET_LOOKS,
    Ending,
    Next,
    take_in,
)

from tests.fakes.clock import FakeClock


def test_calls_get_the_grace_and_no_more() -> None:
    clock = FakeClock()
    ending = Ending(30.0, clock)
    assert ending.look(2) is Next.WAIT
    clock.advance(29.9)
    assert ending.look(1) is Next.WAIT
    clock.advance(0.1)
    assert ending.look(1) is Next.GIVE_UP


def test_connections_without_calls_are_closed_a_second_after_the_last_call() -> None:
    clock = FakeClock()
    ending = Ending(30.0, clock)
    assert ending.look(0) is Next.WAIT
    clock.advance(LINGER_S / 2)
    # One more arrives: the second begins anew.
    assert ending.look(1) is Next.WAIT
    clock.advance(LINGER_S)
    assert ending.look(0) is Next.WAIT
    clock.advance(LINGER_S)
    assert ending.look(0) is Next.CLOSE


def test_the_grace_bounds_the_second_too() -> None:
    clock = FakeClock()
    ending = Ending(LINGER_S / 2, clock)
    assert ending.look(0) is Next.WAIT
    clock.advance(LINGER_S / 2)
    assert ending.look(0) is Next.CLOSE


class Core:
    """A queue of events, and what a thread of gRPC core's does at each look at it."""

    def __init__(self, *looks: tuple[int, bool]) -> None:
        """Each look: events that the thread has handed over by its end, and what it saw before."""
        self.events = 0
        self.handled = 0
        self.looks = 0
        self.misses = 0
        self.waits = 0
        self._planned = deque(looks)

    def look(self) -> bool:
        self.looks += 1
        handed, more = self._planned.popleft() if self._planned else (0, False)
        self.events += handed
        return more

    def poll(self, seconds: float) -> bool:
        self.waits += seconds > 0
        if not self.events:
            return False
        if self.misses:
            # As when two threads meet at the queue.
            self.misses -= 1
            return False
        self.events -= 1
        self.handled += 1
        return True


def test_what_is_handed_over_during_the_last_look_is_taken_in() -> None:
    core = Core((0, False), (3, False))
    take_in(core.poll, core.look)
    assert core.handled == 3
    assert core.looks == 2 + QUIET_LOOKS


def test_the_end_waits_while_a_thread_is_at_work_and_one_miss_means_nothing() -> None:
    core = Core((0, True), (0, True), (0, False), (5, True))
    core.misses = MISSES - 1
    take_in(core.poll, core.look)
    assert core.handled == 5
    assert core.waits == core.looks - 1


def test_neither_threads_that_never_rest_nor_callers_that_send_on_and_on_put_the_end_off() -> None:
    restless = Core(*[(0, True)] * (2 * ARRIVE_LOOKS))
    take_in(restless.poll, restless.look)
    assert restless.looks == ARRIVE_LOOKS
    flooded = Core((2 * ARRIVE_EVENTS, True))
    take_in(flooded.poll, flooded.look)
    assert flooded.handled == ARRIVE_EVENTS
