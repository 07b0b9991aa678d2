"""Both ends of a link take turns at random: every request gets its own answer, exactly once.

The worker computes OUTPUT0 = 2 * INPUT0 and gives text back as it is. It may answer in any
order, refuse, run into a full ring, and die; the front may die, too.
"""

from __future__ import annotations

import os

import numpy as np
from inferd_server.batching.job import Job
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.slots import Arena, NoRoom
from inferd_server.errors import Cancelled, EngineFailure, InferdError, QueueFull, WorkerLost
from inferd_server.monitoring.phases import Execution
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import STATUSES, WorkerLink

from tests.fuzz.operations import Choices
from tests.fuzz.parties import FLOAT, MODELS, TEXT, Caller
from tests.server.callers import placed

LAYOUT = Layout(requests=8, input_bytes=1 << 15, answer_bytes=1 << 11)
RUN = Execution(1, 0.0, 0.0, 0.0)
DTYPES = {model.number: [model.dtype] for model in MODELS}
ERRORS: list[type[InferdError]] = [*STATUSES, EngineFailure]


class Both:
    """A front and a worker on one link, and what is on its way."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._memory = create(LAYOUT)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._worker = WorkerLink(0, LinkMemory(self._memory, LAYOUT), self._bell)
        self._taken: list[list[LinkRequest]] = []
        self._asked: list[tuple[Caller, Job]] = []
        self._gone: list[Caller] = []
        self._serial = 0
        self._begin()

    def close(self) -> None:
        os.close(self._memory)
        os.close(self._bell)

    def _begin(self) -> None:
        """Begin with a new front, as after the death of one."""
        memory = LinkMemory(self._memory, LAYOUT)
        memory.reset()
        self._front = FrontLink(memory, self._bell)
        self._arena = Arena(100, 1 << 14, LanePool(self._front.inputs, 1 << 13))
        self._worker.attach()

    def submit(self) -> None:
        model, rows = self._choices.one_of(MODELS), self._choices.number(1, 4)
        self._serial += 1
        if model.dtype == TEXT:
            values = np.array([[b"x" * self._choices.byte(), b"%d" % self._serial]] * rows, TEXT)
            nbytes, expected = sum(4 + len(v) for v in values.flat), values
        else:
            values = np.full((rows, model.width), self._serial, FLOAT)
            values[:, 0] = range(rows)
            nbytes, expected = values.nbytes, 2 * values
        try:
            slot = self._arena.reserve(model.specs, rows, nbytes)
        except NoRoom:
            return
        slot.inputs[0][...] = values
        caller = Caller(expected)
        job = placed(slot, model.number, 0.0, None, caller)
        full = self._front.in_flight == LAYOUT.requests
        assert self._front.submit(job, model)
        assert bool(caller.errors) == full
        if full:
            assert isinstance(caller.errors[0], QueueFull)
        else:
            self._asked.append((caller, job))

    def take(self) -> None:
        found = self._worker.take(DTYPES)
        # As the inbox does: those of each model.
        parts = [[one for one in found if one.model == model.number] for model in MODELS]
        self._taken += [part for part in parts if part]

    def answer(self) -> None:
        """Run some of what was taken for one model, wherever in the queue."""
        if not self._taken:
            return
        taken = self._taken.pop(self._choices.number(0, len(self._taken) - 1))
        count = self._choices.number(1, len(taken))
        run, rest = taken[:count], taken[count:]
        if rest:
            self._taken.append(rest)
        if run[0].epoch != self._worker.epoch:
            # Those of a front that is gone must not be looked for in the next one's memory.
            self._expect_gone(run)
            return
        (inputs,) = self._worker.begin(run)
        outputs = inputs if MODELS[run[0].model].dtype == TEXT else 2 * inputs
        self._worker.finish(run, {"OUTPUT0": outputs}, 0.0, RUN)

    def _expect_gone(self, run: list[LinkRequest]) -> None:
        try:
            self._worker.begin(run)
        except Cancelled:
            self._worker.fail(run, EngineFailure())
        else:
            raise AssertionError("rows of a front that is gone")

    def refuse(self) -> None:
        if self._taken:
            taken = self._taken.pop(self._choices.number(0, len(self._taken) - 1))
            self._worker.fail(taken, self._choices.one_of(ERRORS)("why"))

    def consume(self) -> None:
        self._front.consume()
        self._worker.flush()
        self._settle()

    def cancel(self) -> None:
        if self._asked:
            self._front.cancel(self._choices.one_of(self._asked)[1])

    def lose_worker(self) -> None:
        """The worker dies: a new one joins once the front has answered everything."""
        self._worker.detach()
        for lost in self._front.take_back():
            lost.job.fail(WorkerLost("gone"))
        self._settle()
        assert self._asked == []
        self._taken.clear()
        self._worker = WorkerLink(0, LinkMemory(self._memory, LAYOUT), self._bell)
        self._worker.attach()

    def lose_front(self) -> None:
        """The front dies, and its callers with it; the worker goes on with what it took."""
        self._worker.detach()
        self._gone += [caller for caller, _ in self._asked]
        self._asked.clear()
        if self._choices.byte() & 1:
            self._taken.clear()
        self._begin()

    def _settle(self) -> None:
        """Check who was answered, and forget them."""
        for caller, _ in self._asked:
            assert caller.answers <= 1
            for output in caller.outputs:
                np.testing.assert_array_equal(output, caller.expected)
        self._asked = [(caller, job) for caller, job in self._asked if not caller.answers]
        assert self._front.in_flight == len(self._asked)
        assert self._arena.rows == sum(job.rows for _, job in self._asked)

    def finish(self) -> None:
        """Answer everything that is still open: then nothing is held."""
        for _ in range(1000):
            if not self._asked:
                break
            self.take()
            self.answer()
            self.consume()
        assert self._asked == [], "a request is never answered"
        assert not self._worker.backlog
        self._arena.close()
        assert self._front.inputs.held == 0
        assert all(caller.answers == 0 for caller in self._gone)


TURNS = [
    Both.submit, Both.submit, Both.submit, Both.take, Both.take, Both.answer, Both.answer,
    Both.consume, Both.consume, Both.refuse, Both.cancel, Both.lose_worker, Both.lose_front,
]  # fmt: skip


def link(data: bytes) -> None:
    """Let both ends take turns."""
    choices = Choices(data)
    both = Both(choices)
    try:
        while not choices.over:
            choices.one_of(TURNS)(both)
        both.finish()
    finally:
        both.close()
