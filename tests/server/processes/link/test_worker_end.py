"""What the worker reads of the memory that a front writes, and what it must not read."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.slots import Arena
from inferd_server.errors import Cancelled, EngineFailure
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.inputs import SharedRows
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import WorkerLink

from tests.server.callers import job_of, rows_of
from tests.server.processes.link.bench import LAYOUT, Target

FLOAT = {1: [np.dtype(np.float32)]}


@pytest.fixture
def memory() -> Iterator[LinkMemory]:
    descriptor = create(LAYOUT)
    yield LinkMemory(descriptor, LAYOUT)
    os.close(descriptor)


@pytest.fixture
def bell() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def asked(memory: LinkMemory, bell: int, worker: WorkerLink, value: float) -> LinkRequest:
    """Let a new front send a request, and the worker take it."""
    memory.reset()
    front = FrontLink(memory, bell)
    worker.attach()
    assert front.submit(job_of(Arena(1000, 1 << 14, LanePool(front.inputs)), [value]), Target(1))
    (request,) = worker.take(FLOAT)
    return request


def test_rows_of_a_dead_front_are_not_read_from_the_next_ones_memory(
    memory: LinkMemory, bell: int
) -> None:
    worker = WorkerLink(0, memory, bell)
    old = asked(memory, bell, worker, 1.0)
    worker.detach()
    new = asked(memory, bell, worker, 2.0)
    # Both fronts begin to count at the same number.
    assert old.ticket == new.ticket
    with pytest.raises(Cancelled):
        worker.begin([old])
    assert old.cancelled
    assert not new.cancelled
    assert memory.begun[new.place] == 0
    (array,) = worker.begin([new])
    assert array.tolist() == rows_of(2.0)
    assert memory.begun[new.place] == new.ticket


def test_a_request_whose_rows_cannot_be_read_fails_alone(memory: LinkMemory, bell: int) -> None:
    worker, front = WorkerLink(0, memory, bell), FrontLink(memory, bell)
    worker.attach()
    # Each in a lane of its own.
    jobs = [job_of(Arena(1, 1 << 10, LanePool(front.inputs)), [float(n)]) for n in range(3)]
    broken = jobs[1].slot.place
    assert isinstance(broken, SharedRows)
    # Where the first input begins, how much text it has, its rank and its shape.
    memory.inputs[broken.block :].view(np.int64)[2:6] = 1 << 40
    for job in jobs:
        assert front.submit(job, Target(1))
    before, bad, after = worker.take(FLOAT)
    with pytest.raises(EngineFailure):
        worker.begin([bad])
    assert bad.key not in (before.key, after.key)
    assert before.key == after.key
    (rows,) = worker.begin([before, after])
    assert rows.tolist() == rows_of(0.0, 2.0)
