"""Steps of sequences over the real queue, runner and link, on engines that a test can hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Signature, Tensor
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.inline import Guest, InlineLoop
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.inference.infer_request import cancel, expire
from inferd_server.models.config import StateConfig
from inferd_server.processes.link.layout import Layout
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.steps import Step, hidden_specs
from inferd_server.sequences.store import Sequences

from tests.fakes.engine import FakeEngine
from tests.server.callers import ANSWERED_WITHIN, Caller, CallersJob
from tests.server.processes.link.bench import LAYOUT, Bench, Front, Target, bench

FLOAT = np.dtype(np.float32)
PAIR = StateConfig(input="SUM_IN", output="SUM_OUT")
SUMMING = Signature(
    (Tensor("INPUT0", FLOAT, (None, None)), Tensor("SUM_IN", FLOAT, (None, 1))),
    (Tensor("OUTPUT0", FLOAT, (None, None)), Tensor("SUM_OUT", FLOAT, (None, 1))),
)
MOST_ROWS = 8


class SummingEngine(FakeEngine):
    """OUTPUT0 and the state are the sum so far of the first elements."""

    def __init__(self) -> None:
        super().__init__(SUMMING, self._add)
        self._width = 1

    def widen(self, width: int) -> None:
        """Give so many equal numbers in each row of OUTPUT0."""
        self._width = width

    def _add(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        total = inputs["INPUT0"][:, :1] + inputs["SUM_IN"]
        return {"OUTPUT0": total.repeat(self._width, axis=1), "SUM_OUT": total}


@dataclass
class Door:
    """Where steps come in."""

    arena: Arena
    submit: Callable[[Job], bool]
    withdraw: Callable[[Job], bool]


@dataclass
class Stateful:
    """A model whose requests build on each other, in one arrangement."""

    engines: Sequence[SummingEngine]
    doors: Sequence[Door]
    """By which steps come in: one, or one of each front."""
    jobs: dict[int, Job] = field(default_factory=dict)
    made: Bench | None = None

    @property
    def bench(self) -> Bench:
        """Fronts and worker."""
        assert self.made is not None
        return self.made

    def send(
        self, key: int, value: float, *, start: bool = False, width: int = 1, front: int = 0
    ) -> Caller:
        """Send a step whose input is so wide."""
        caller, door = Caller(), self.doors[front]
        specs = ((FLOAT, (width,)), *hidden_specs())
        slot = door.arena.reserve(specs, 1, 64)
        slot.inputs[0][...] = value
        Step(key, start, False).write(slot.inputs[1:])
        job = CallersJob(caller)
        job.place(slot, specs, time.monotonic(), None, 0, key)
        self.jobs[id(caller)] = job
        assert door.submit(job)
        return caller

    def answer(self, key: int, value: float, *, start: bool = False) -> float:
        """Send a step and return its answer."""
        return value_of(self.send(key, value, start=start))

    def hold(self) -> None:
        """Let the next run of each engine wait for `release`."""
        for engine in self.engines:
            engine.hold()

    def release(self) -> None:
        """Let every engine go on."""
        for engine in self.engines:
            engine.release()

    def give_up(self, caller: Caller, how: str) -> None:
        """Let a caller go away, or its time be over."""
        door: Any = self.doors[0]
        {"cancelled": cancel, "timed out": expire}[how](door, self.jobs[id(caller)])


def value_of(caller: Caller) -> float:
    """Return the only answer."""
    (row,) = caller.wait().output
    return row[0]


def engines_of(count: int, kept: Sequences) -> tuple[list[SummingEngine], list[StatefulEngine]]:
    """Return fake engines, and what keeps one set of sequences around them."""
    inner = [SummingEngine() for _ in range(count)]
    return inner, [StatefulEngine(engine, [PAIR], kept, batched=True) for engine in inner]


@contextmanager
def local(instances: int, *, inline: bool) -> Iterator[Stateful]:
    """One process: a thread for each instance, or the transport's."""
    queue: BatchQueue[Job] = BatchQueue(BatchBounds(MOST_ROWS, sequences=True), time.monotonic)
    inner, engines = engines_of(instances, Sequences(64, 60.0, time.monotonic))
    runners: list[Runner[Job]] = [
        Runner(engine, True, lambda _: None, time.monotonic, finished=queue.finished)
        for engine in engines
    ]
    came, ended = threading.Semaphore(0), threading.Event()
    loop = InlineLoop(time.monotonic)
    if inline:
        loop.host(Guest(queue, runners[0], lambda: None, lambda _: None))

    def live(runner: Runner[Job]) -> None:
        while inline and not ended.is_set():
            came.acquire()
            while loop.turn() is not None:
                pass
        while (decision := queue.take()) is not None:
            runner(decision)

    threads = [threading.Thread(target=live, args=(runner,), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    arena = Arena(1000, 1 << 16)

    def submit(job: Job) -> bool:
        submitted = queue.submit(job)
        came.release()
        return submitted

    made = Stateful(inner, [Door(arena, submit, queue.withdraw)])
    try:
        yield made
    finally:
        made.release()
        queue.close()
        ended.set()
        came.release()
        for thread in threads:
            thread.join(ANSWERED_WITHIN)
    assert arena.rows == 0


@contextmanager
def split(instances: int, layout: Layout = LAYOUT, fronts: int = 1) -> Iterator[Stateful]:
    """Fronts and a worker."""
    inner, engines = engines_of(instances, Sequences(64, 60.0, time.monotonic))
    with bench(fronts, layout) as made:
        target = made.serve(*engines, max_rows=MOST_ROWS, sequences=True)
        doors = [door_of(front, target) for front in made.fronts]
        found = Stateful(inner, doors, made=made)
        try:
            yield found
        finally:
            found.release()


def door_of(front: Front, target: Target) -> Door:
    """Return where a front's steps come in."""

    def withdraw(job: Job) -> bool:
        front.link.cancel(job)
        return False

    return Door(front.arena, lambda job: front.link.submit(job, target), withdraw)


ARRANGEMENTS: Mapping[str, Callable[[], AbstractContextManager[Stateful]]] = {
    "inline": lambda: local(1, inline=True),
    "threads": lambda: local(1, inline=False),
    "split": lambda: split(1),
}
SEVERAL: Mapping[str, Callable[[], AbstractContextManager[Stateful]]] = {
    "threads": lambda: local(3, inline=False),
    "split": lambda: split(3),
}
