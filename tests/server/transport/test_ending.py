"""How long the end of a transport takes."""

from __future__ import annotations

from inferd_server.transport.ending import LINGER_S, Ending, Next

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
