"""Who is woken for a request and for its answer: nobody who looks anyway."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.slots import Arena
from inferd_server.monitoring.phases import Execution
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import WorkerLink

from tests.server.callers import Caller, job_of, rows_of
from tests.server.processes.link.bench import LAYOUT, Target

FLOAT = {1: [np.dtype(np.float32)]}


class Ends:
    """Both ends of a link, whose eventfds nobody waits on."""

    def __init__(self) -> None:
        memory = LinkMemory(create(LAYOUT), LAYOUT)
        self.wake_front, self.wake_worker = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2))
        self.front = FrontLink(memory, self.wake_worker)
        self.worker = WorkerLink(0, memory, self.wake_front)
        self.worker.attach()
        self._arena = Arena(1000, 1 << 14, LanePool(self.front.inputs))

    def turn(self) -> None:
        """Let this thread look for answers once, as the one that polls, and then sleep."""
        self.front.turn()

    def send(self, value: float) -> Caller:
        caller = Caller()
        assert self.front.submit(job_of(self._arena, [value], caller), Target(1))
        return caller

    def answer(self) -> None:
        """Let the worker run everything that was sent."""
        requests = self.worker.take(FLOAT)
        (rows,) = self.worker.begin(requests)
        run = Execution(len(requests), 0.0, 0.0, 0.0)
        self.worker.finish(requests, {"OUTPUT0": 2 * rows}, 0.0, run)


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    os.close(made.wake_front)
    os.close(made.wake_worker)


def woken(bell: int) -> bool:
    """True if somebody was woken since the last time."""
    try:
        return os.eventfd_read(bell) > 0
    except BlockingIOError:
        return False


def test_nobody_is_woken_for_an_answer_while_the_polling_thread_is_awake(ends: Ends) -> None:
    ends.turn()
    caller = ends.send(1.0)
    ends.answer()
    assert not woken(ends.wake_front)
    ends.turn()
    assert caller.output == rows_of(2.0)


def test_an_answer_after_the_polling_thread_went_to_sleep_wakes_somebody(ends: Ends) -> None:
    ends.turn()
    caller = ends.send(1.0)
    ends.turn()
    ends.answer()
    assert woken(ends.wake_front)
    assert ends.front.consume()
    assert caller.output == rows_of(2.0)


def test_an_answer_at_the_moment_the_polling_thread_goes_to_sleep_is_found(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.turn()
    caller = ends.send(1.0)
    consume = ends.front.consume

    def late() -> bool:
        found = consume()
        if not caller.answers:
            ends.answer()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ends.front, "consume", late)
        ends.turn()
    assert not woken(ends.wake_front)
    assert caller.output == rows_of(2.0)


def test_a_front_that_awaits_answers_looks_again_unasked(ends: Ends) -> None:
    assert ends.front.turn() is None
    ends.send(1.0)
    assert ends.front.turn() is not None
    ends.answer()
    assert ends.front.turn() is None


def test_a_request_of_another_thread_does_not_count_on_the_polling_thread(ends: Ends) -> None:
    ends.turn()
    sending = threading.Thread(target=ends.send, args=(1.0,))
    sending.start()
    sending.join(30)
    ends.answer()
    assert woken(ends.wake_front)


def test_somebody_is_woken_where_no_thread_polls(ends: Ends) -> None:
    ends.send(1.0)
    ends.answer()
    assert woken(ends.wake_front)


def test_the_worker_is_woken_for_a_request_only_while_it_sleeps(ends: Ends) -> None:
    ends.send(1.0)
    assert not woken(ends.wake_worker)
    # It must not sleep on what is there already.
    assert not ends.worker.sleep()
    ends.answer()
    assert ends.worker.sleep()
    ends.send(2.0)
    assert woken(ends.wake_worker)
    ends.worker.wake()
    ends.send(3.0)
    assert not woken(ends.wake_worker)


def test_a_worker_that_has_nothing_is_woken_at_once_and_for_more_when_all_has_come(
    ends: Ends,
) -> None:
    ends.front.turn()
    assert ends.worker.sleep()
    ends.send(1.0)
    assert woken(ends.wake_worker)
    for value in (2.0, 3.0):
        ends.send(value)
        assert not woken(ends.wake_worker)
    ends.front.turn()
    assert woken(ends.wake_worker)
    ends.front.turn()
    assert not woken(ends.wake_worker)


def test_a_request_of_another_thread_wakes_the_worker_at_once(ends: Ends) -> None:
    ends.front.turn()
    assert ends.worker.sleep()
    ends.send(1.0)
    assert woken(ends.wake_worker)
    sending = threading.Thread(target=ends.send, args=(2.0,))
    sending.start()
    sending.join(30)
    assert woken(ends.wake_worker)


def test_a_front_that_begins_anew_wakes_the_worker_that_sleeps(ends: Ends) -> None:
    assert ends.worker.sleep()
    ends.worker.detach()
    ends.front.take_back()
    ends.worker.attach()
    assert ends.worker.sleep()
    ends.send(1.0)
    assert woken(ends.wake_worker)


def test_a_polling_thread_that_cannot_answer_does_not_sleep_on_what_follows(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> bool:
        raise ValueError("no")

    ends.turn()
    caller = ends.send(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(ends.front, "consume", fail)
        ends.turn()
    ends.answer()
    assert woken(ends.wake_front)
    assert ends.front.consume()
    assert caller.output == rows_of(2.0)
