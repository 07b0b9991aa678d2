"""Somebody always listens to the fronts."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from inferd_server.batching.decision import BatchBounds
from inferd_server.processes.inbox import Inbox
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import WorkerLink

from tests.fakes.clock import FakeClock

WITHIN = 30.0
LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)


class WatchedLink(WorkerLink):
    """Tells that somebody looked for requests, who then waits, and lets go of the lock."""

    def __init__(self, wake: int) -> None:
        super().__init__(0, LinkMemory(create(LAYOUT), LAYOUT), wake)
        self.looked = threading.Semaphore(0)

    def take(self, dtypes: Mapping[int, object]) -> list[LinkRequest]:
        self.looked.release()
        return []


def test_an_instance_listens_once_the_spare_thread_was_woken_for_nothing() -> None:
    clock = FakeClock()
    # Never closed: the spare thread listens for ever, and the number may become somebody else's.
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    link = WatchedLink(wake)
    inbox = Inbox([link], wake, clock)
    inbox.start()
    assert link.looked.acquire(timeout=WITHIN)
    queue = inbox.open([], BatchBounds(1))
    taken: list[object] = []
    instance = threading.Thread(target=lambda: taken.append(queue.take()))
    instance.start()
    # The spare thread listens, and the instance sleeps.
    clock.await_reads(1)
    os.eventfd_write(wake, 1)
    clock.await_reads(2)
    os.eventfd_write(wake, 1)
    clock.await_reads(3)
    queue.close()
    instance.join(WITHIN)
    assert taken == [None]
