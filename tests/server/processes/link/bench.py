"""Both ends of links in one process: fronts without a transport, a worker with fake engines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from inferd_engines.engine import Engine
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.fair_share import FairShare, Member, Turn
from inferd_server.batching.job import Job
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.monitoring.phases import Execution
from inferd_server.processes.inbox import Inbox
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import LinkRequest, WorkerLink

from tests.server.callers import ANSWERED_WITHIN, Caller, job_of

LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)


@dataclass
class Target:
    """A model of the worker, as a front sends to it."""

    number: int
    name: str = "m"
    version: int = 1
    worker: int = 0
    closed: bool = False
    returning: bool = False
    batched: bool = True
    outputs: Sequence[tuple[str, np.dtype]] = (("OUTPUT0", np.dtype(np.float32)),)

    @property
    def targets(self) -> Sequence[Target]:
        """As the only one of a line."""
        return () if self.closed else (self,)

    @property
    def line(self) -> Target:
        """As of a target."""
        return self

    def left(self, request: Job) -> None:
        """Do nothing."""


class Front:
    """One front's end, whose answers a thread consumes unless it is held."""

    def __init__(self, memory: int, layout: Layout, wake: int, wake_worker: int) -> None:
        self.link = FrontLink(LinkMemory(memory, layout), wake_worker)
        self.arena = Arena(1000, 1 << 16, LanePool(self.link.inputs, self.link.inputs.size))
        self.consumes = threading.Event()
        self.consumes.set()
        self._wake = wake
        self._ended = False
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def send(
        self,
        target: Target,
        *values: float,
        deadline: float | None = None,
        delay_at: float = float("inf"),
    ) -> Caller:
        caller = Caller()
        job = job_of(self.arena, values, caller, arrived=time.monotonic(), deadline=deadline)
        job.delay_at = delay_at
        if not self.link.submit(job, target):
            job.slot.free()
            raise AssertionError("the target is closed")
        return caller

    def close(self) -> None:
        self._ended = True
        self.consumes.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join(ANSWERED_WITHIN)

    def _consume(self) -> None:
        while not self._ended:
            os.eventfd_read(self._wake)
            self.consumes.wait(ANSWERED_WITHIN)
            self.link.consume()


class Bench:
    """Fronts, links and a worker whose models run on fake engines, each on a thread."""

    def __init__(self, fronts: int, layout: Layout = LAYOUT) -> None:
        self.wake_worker = os.eventfd(0, os.EFD_NONBLOCK)
        self.memories = [create(layout) for _ in range(fronts)]
        self.wakes = [os.eventfd(0) for _ in range(fronts)]
        self.links = {
            index: WorkerLink(index, LinkMemory(memory, layout), wake)
            for index, (memory, wake) in enumerate(zip(self.memories, self.wakes, strict=True))
        }
        self.inbox = Inbox(list(self.links.values()), self.wake_worker, time.monotonic)
        self.inbox.start()
        for index in self.links:
            self.inbox.attach(index)
        pairs = zip(self.memories, self.wakes, strict=True)
        self.fronts = [Front(memory, layout, wake, self.wake_worker) for memory, wake in pairs]
        self.executions: list[Execution] = []
        self._threads: list[threading.Thread] = []
        self.queues: list[BatchQueue[LinkRequest]] = []

    def serve(
        self,
        *engines: Engine,
        max_rows: int = 32,
        sequences: bool = False,
        delays: bool = False,
        share: FairShare | None = None,
    ) -> Target:
        """Run a model on some engines from now on."""
        dtypes = [tensor.dtype for tensor in engines[0].signature.inputs]
        queue = self.inbox.open(dtypes, BatchBounds(max_rows, sequences=sequences, delays=delays))
        self.queues.append(queue)
        member, clock = Member(1.0), time.monotonic
        for engine in engines:
            turn = share and Turn(share, member, clock, lambda: queue.rows > 0)
            run: Runner[LinkRequest] = Runner(
                engine, True, self.executions.append, clock, turn=turn, finished=queue.finished
            )
            thread = threading.Thread(target=self._run, args=(queue, run, turn), daemon=True)
            thread.start()
            self._threads.append(thread)
        return Target(queue.number)

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
        for thread in self._threads:
            thread.join(ANSWERED_WITHIN)
            assert not thread.is_alive(), "an instance does not end"
        for front in self.fronts:
            front.close()

    def close_models(self) -> None:
        """Let no model take any more; what waits is still run."""
        for queue in self.queues:
            queue.close()

    def _run(
        self, queue: BatchQueue[LinkRequest], run: Runner[LinkRequest], turn: Turn | None
    ) -> None:
        while (decision := queue.take(turn=turn)) is not None:
            run(decision)


@contextmanager
def bench(fronts: int = 1, layout: Layout = LAYOUT) -> Iterator[Bench]:
    """Set a bench up; at the end nothing may be in flight."""
    made = Bench(fronts, layout)
    try:
        yield made
    finally:
        made.close()
    assert [front.link.in_flight for front in made.fronts] == [0] * fronts
    assert [front.arena.rows for front in made.fronts] == [0] * fronts
