"""A front with a link to each of two workers, which run on fake engines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.job import Job
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import Cancelled
from inferd_server.processes.front_links import FrontLinks
from inferd_server.processes.inbox import Inbox
from inferd_server.processes.link.front_end import LOOK_AGAIN_S, FrontLink
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import LinkRequest, WorkerLink
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.retry import RetryingLink

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.server.callers import ANSWERED_WITHIN, Caller, job_of

LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)
WITHIN = 30.0


class FakeLine:
    """A model that both workers have, and what each calls it."""

    name, version, number, batched = "m", 1, 0, True
    outputs: Sequence[tuple[str, np.dtype]] = (("OUTPUT0", np.dtype(np.float32)),)

    def __init__(self) -> None:
        self.targets: Sequence[FakeTarget] = ()
        self.closed = self.returning = False

    def left(self, request: Job) -> None:
        """Do nothing."""


class FakeTarget(FakeLine):
    """The model in one of them."""

    def __init__(self, line: FakeLine, worker: int, number: int) -> None:
        super().__init__()
        self.line, self.worker, self.number = line, worker, number


class Worker:
    """One end of a link, and a model on an engine that a test may hold."""

    def __init__(self, memory: int, inputs: int, wake: int) -> None:
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        self.inbox = Inbox(
            [WorkerLink(0, LinkMemory(memory, LAYOUT, inputs), wake)], self.wake, time.monotonic
        )
        self.inbox.start()
        self.inbox.attach(0)
        self.engine = FakeEngine()
        dtypes = [tensor.dtype for tensor in self.engine.signature.inputs]
        self.queue = self.inbox.open(dtypes, BatchBounds(1))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        run: Runner[LinkRequest] = Runner(self.engine, True, lambda _: None, time.monotonic)
        while (decision := self.queue.take()) is not None:
            run(decision)


class Rig:
    """A front, two workers that both serve a model, and a thread that answers."""

    def __init__(self) -> None:
        memories, wake = [create(LAYOUT) for _ in range(2)], os.eventfd(0)
        self.workers = [Worker(memory, memories[0], wake) for memory in memories]
        ends: list[FrontLink] = []
        for memory, worker in zip(memories, self.workers, strict=True):
            mapped = LinkMemory(memory, LAYOUT, memories[0])
            ends.append(FrontLink(mapped, worker.wake, ends[0].inputs if ends else None))
        self.ends, self.links = ends, FrontLinks(ends)
        self.line = FakeLine()
        self.line.targets = [
            FakeTarget(self.line, index, worker.queue.number)
            for index, worker in enumerate(self.workers)
        ]
        self.arena = Arena(1000, 1 << 16, LanePool(self.links.inputs, self.links.inputs.size))
        self.retrying = RetryingLink(
            self.links,
            Quarantine(60.0, FakeClock()),
            10.0,
            time.monotonic,
            lambda _seconds, _task: None,
        )
        self._wake, self._ended = wake, False
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def send(self, value: float) -> Caller:
        caller = Caller()
        job = job_of(self.arena, [value], caller, arrived=time.monotonic())
        assert self.retrying.submit(job, self.line)  # type: ignore[arg-type]
        return caller

    def dies(self, worker: int) -> None:
        """The first worker is gone, which the front is told."""
        (gone,) = [target for target in self.line.targets if target.worker == worker]
        self.line.targets = [target for target in self.line.targets if target is not gone]
        gone.closed, self.line.returning = True, not self.line.targets
        self.workers[worker].inbox.detach(0)
        self.retrying.lose("lost", worker)
        self.retrying.settle(lambda line: line if self.line.targets else None)  # type: ignore[arg-type, return-value]

    def close(self) -> None:
        for worker in self.workers:
            worker.engine.release()
            worker.queue.close()
            worker.thread.join(ANSWERED_WITHIN)
        self._ended = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(ANSWERED_WITHIN)
        assert (self.links.in_flight, self.arena.rows) == (0, 0)

    def _answer(self) -> None:
        while not self._ended:
            os.eventfd_read(self._wake)
            self.links.answer()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def held(rig: Rig) -> list[Caller]:
    """Return two requests that run, one in each worker."""
    for worker in rig.workers:
        worker.engine.hold()
    callers = [rig.send(1.0), rig.send(2.0)]
    for worker in rig.workers:
        assert worker.engine.running.wait(WITHIN)
    return callers


def test_a_request_goes_to_the_worker_that_has_the_fewest(rig: Rig) -> None:
    callers = held(rig)
    assert [end.in_flight for end in rig.ends] == [1, 1]
    callers += [rig.send(3.0) for _ in range(4)]
    assert [end.in_flight for end in rig.ends] == [3, 3]
    rig.workers[1].engine.release()
    for caller in (callers[1], callers[3], callers[5]):
        caller.wait()
    assert rig.ends[1].in_flight == 0
    callers += [rig.send(4.0) for _ in range(2)]
    assert rig.ends[0].in_flight == 3
    rig.workers[0].engine.release()
    for caller in callers:
        assert caller.wait().errors == []


def test_what_a_dead_worker_had_goes_to_the_other_at_once_and_from_the_same_memory(
    rig: Rig,
) -> None:
    callers = [*held(rig), rig.send(3.0), rig.send(4.0)]
    rig.dies(0)
    assert [end.in_flight for end in rig.ends] == [0, 4]
    callers.append(rig.send(5.0))
    rig.workers[1].engine.release()
    assert [caller.wait().output[0][0] for caller in callers] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert rig.retrying.held == 0


def test_what_the_last_worker_had_waits(rig: Rig) -> None:
    callers = held(rig)
    rig.dies(1)
    rig.dies(0)
    assert (rig.retrying.held, rig.links.in_flight) == (2, 0)
    late = rig.send(3.0)
    assert rig.retrying.held == 3
    worker = rig.workers[0]
    worker.engine.release()
    rig.line.targets = [FakeTarget(rig.line, 0, worker.queue.number)]
    rig.line.returning = False
    rig.retrying.settle(lambda line: line)  # type: ignore[arg-type, return-value]
    worker.inbox.attach(0)
    for caller in (*callers, late):
        assert caller.wait().errors == []


def test_who_goes_away_is_told_to_the_worker_that_has_the_request(rig: Rig) -> None:
    held(rig)
    caller = Caller()
    job = job_of(rig.arena, [9.0], caller, arrived=time.monotonic())
    rig.retrying.submit(job, rig.line)  # type: ignore[arg-type]
    (worker,) = [index for index, end in enumerate(rig.ends) if end.in_flight == 2]
    assert not rig.retrying.withdraw(job)
    rig.workers[worker].engine.release()
    assert isinstance(caller.wait().error, Cancelled)


def test_a_front_looks_at_every_link_before_it_sleeps(rig: Rig) -> None:
    assert rig.links.turn() is None
    callers = held(rig)
    assert rig.links.turn() == LOOK_AGAIN_S
    for worker in rig.workers:
        worker.engine.release()
    for caller in callers:
        caller.wait()
    assert rig.links.turn() is None


def test_a_caller_who_waits_for_each_answer_uses_all_workers(rig: Rig) -> None:
    for number in range(4):
        rig.send(float(number)).wait()
    assert [len(worker.engine.batches) for worker in rig.workers] == [2, 2]
