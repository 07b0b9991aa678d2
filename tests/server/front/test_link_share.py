"""One stream has its share of the link to the worker; nothing of it is lost."""

from __future__ import annotations

import pytest
from inferd_server.errors import HandleRetired, QueueFull
from inferd_server.front.link_share import LinkShare
from inferd_server.scheduler.job import Execution, Job, Phases
from inferd_server.scheduler.lane import LanePool
from inferd_server.scheduler.slot import Arena
from inferd_server.scheduler.stream_share import BATCHES

from tests.server.callers import Caller, job_of

STREAM, ANOTHER = object(), object()
ROWS = 2
SHARE = BATCHES * ROWS
RUN = Execution(1, 0.0, 0.0, 0.0)


class Worker:
    """What the link has brought, answered when a test says so."""

    def __init__(self) -> None:
        self.share = LinkShare(self.send, ROWS)
        self.arena = Arena(2000, 1 << 16, LanePool())
        self.sent: list[Job] = []
        self.arrived: list[Job] = []
        self.callers: list[Caller] = []
        self.full = self.closed = False

    def ask(self, count: int, stream: object = STREAM) -> list[Job]:
        made = []
        for _ in range(count):
            self.callers.append(Caller())
            made.append(job_of(self.arena, [1.0], self.callers[-1]))
            made[-1].stream = stream
            assert self.share.submit(made[-1])
        return made

    def send(self, job: Job) -> bool:
        if self.full:
            job.fail(QueueFull("no room"))
        elif not self.closed:
            self.sent.append(job)
            self.arrived.append(job)
        return not self.closed

    def answer(self) -> None:
        job = self.sent.pop(0)
        job.finish({}, Phases(0.0, RUN))
        self.share.left(job)

    @property
    def errors(self) -> list[Exception]:
        return [error for caller in self.callers for error in caller.errors]


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_stream_has_no_more_than_its_share_in_the_link_and_loses_nothing(worker: Worker) -> None:
    asked = worker.ask(100)
    assert (len(worker.sent), worker.share.behind) == (SHARE, 100 - SHARE)
    for left in range(99, -1, -1):
        worker.answer()
        assert len(worker.sent) == min(SHARE, left)
    assert worker.arrived == asked
    assert [caller.answers for caller in worker.callers] == [1] * 100


def test_who_comes_after_a_full_stream_waits_for_its_share_alone(worker: Worker) -> None:
    worker.ask(100)
    (other,) = worker.ask(1, ANOTHER)
    assert worker.sent.index(other) == SHARE


def test_requests_that_the_link_refuses_take_no_share(worker: Worker) -> None:
    worker.full = True
    worker.ask(3 * SHARE)
    assert worker.share.behind == 0
    worker.full = False
    worker.ask(2 * SHARE)
    # The link is full by the time that the others come to it: hundreds, and one calls for the next.
    worker.ask(1000)
    worker.full = True
    worker.answer()
    assert worker.share.behind == 0
    assert {caller.answers for caller in worker.callers if caller.answers} == {1}
    assert all(isinstance(error, QueueFull) for error in worker.errors)


def test_what_comes_to_a_model_that_was_replaced_is_admitted_anew(worker: Worker) -> None:
    worker.ask(SHARE + 3)
    worker.closed = True
    worker.answer()
    worker.answer()
    assert [type(error) for error in worker.errors] == [HandleRetired] * 3


def test_a_request_that_is_withdrawn_while_it_stays_is_never_sent(worker: Worker) -> None:
    *_, kept, gone = worker.ask(SHARE + 2)
    assert worker.share.withdraw(gone)
    assert not worker.share.withdraw(gone)
    assert not worker.share.withdraw(worker.sent[0])
    while worker.sent:
        worker.answer()
    assert kept in worker.arrived
    assert gone not in worker.arrived


def test_at_the_end_what_stays_is_handed_back_and_nothing_stays_afterwards(worker: Worker) -> None:
    asked = worker.ask(SHARE + 3)
    assert worker.share.close() == asked[SHARE:]
    later = worker.ask(2 * SHARE)
    assert worker.arrived == asked[:SHARE] + later
    while worker.sent:
        worker.answer()
