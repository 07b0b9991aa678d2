"""Somebody always listens to the fronts."""

from __future__ import annotations

import os
import threading

from inferd_server.scheduler.decision import Limits
from inferd_server.worker.intake import Intake

from tests.fakes.clock import FakeClock


def test_an_instance_listens_once_the_porter_was_woken_for_nothing() -> None:
    clock = FakeClock()
    # Never closed, because the porter listens for ever: the number may become somebody else's.
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    intake = Intake([], wake, clock)
    # Whoever looks for requests reads the clock, and then listens or sleeps.
    intake.start()
    clock.await_reads(1)
    queue = intake.open([], Limits(1))
    taken: list[object] = []
    instance = threading.Thread(target=lambda: taken.append(queue.take()))
    instance.start()
    clock.await_reads(2)
    os.eventfd_write(wake, 1)
    clock.await_reads(4)
    os.eventfd_write(wake, 1)
    clock.await_reads(5)
    queue.close()
    instance.join(30)
    assert taken == [None]
