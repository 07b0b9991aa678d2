"""A side thread waits for company only as long as little waits."""

from __future__ import annotations

import threading

from inferd_server.threads import ROOM, SideThread

PATIENCE, LONG = 10.0, 3600.0
MOST = 400


def side() -> SideThread:
    return SideThread("side", "things wait", MOST, together=LONG)


def test_nothing_waits_for_company_once_much_waits() -> None:
    done, thread = threading.Event(), side()
    thread.submit(MOST // ROOM, done.set)
    assert not done.is_set()
    thread.submit(1, lambda: None)
    assert done.wait(PATIENCE)


def test_nothing_waits_for_company_in_a_hurry() -> None:
    done, thread = threading.Event(), side()
    thread.submit(0, done.set)
    assert not done.is_set()
    thread.hurry()
    assert done.wait(PATIENCE)
