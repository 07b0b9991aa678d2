"""Models on the transport's thread: which ones, in turns, and how they end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from inferd_server.scheduler.decision import Decision, Limits
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.queue import BatchQueue
from inferd_server.scheduler.slot import Arena
from inferd_server.worker.inline import Guest, InlineLoop, why_not_inline

from tests.server.callers import Caller, placed


@dataclass
class Clock:
    """A double for the clock."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """A guest that remembers its batches, made with a real queue."""

    clock: Clock
    max_delay: float = 0.0
    error: BaseException | None = None
    batches: list[int] = field(default_factory=list)
    closed: int = 0
    lost: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue: BatchQueue[Job] = BatchQueue(Limits(2, self.max_delay), self.clock)
        self.arena = Arena(64, 1 << 20)
        self.guest = Guest(self.queue, self.run, self.close, self.lost.append)

    def run(self, decision: Decision[Job]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(len(decision.run))

    def close(self) -> None:
        self.closed += 1

    def submit(self, count: int) -> None:
        for _ in range(count):
            slot = self.arena.reserve([], 1, 0)
            assert slot is not None
            job = placed(slot, "key", self.clock(), None, Caller())
            assert self.queue.submit(job)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hosted(clock: Clock, *models: Model) -> InlineLoop:
    loop = InlineLoop(clock)
    for model in models:
        loop.host(model.guest)
    return loop


@pytest.mark.parametrize(
    ("asked", "instances", "predictable", "seconds", "why"),
    [
        ("auto", 1, True, 0.0005, ""),
        ("auto", 1, True, 0.0021, "a full batch takes 2.1 ms"),
        ("auto", 1, True, None, "nobody knows how long its runs take"),
        ("auto", 1, False, 0.0005, "requests decide how long its runs take"),
        ("auto", 2, True, 0.0005, "2 instances run beside each other"),
        ("inline", 1, True, 0.02, ""),
        ("inline", 1, True, 0.1, "a full batch takes 100 ms"),
        ("inline", 1, True, None, "nobody knows how long its runs take"),
        ("inline", 1, False, 0.0005, "requests decide how long its runs take"),
        ("inline", 2, True, 0.0005, "2 instances run beside each other"),
        ("threads", 1, True, 0.0005, "threads are asked for"),
    ],
)
def test_only_quick_and_predictable_models_with_one_instance_run_inline(
    asked: str, instances: int, predictable: bool, seconds: float | None, why: str
) -> None:
    assert why_not_inline(asked, instances, predictable, seconds) == why


def test_a_turn_runs_one_batch_and_the_guests_take_turns(clock: Clock) -> None:
    first, second = Model(clock), Model(clock)
    loop = hosted(clock, first, second)
    first.submit(5)
    second.submit(1)
    ran = []
    for _ in range(4):
        again = loop.turn()
        ran.append((first.batches.copy(), second.batches.copy()))
        assert again == (None if len(ran) == 4 else 0.0)
    assert ran == [([2], []), ([2], [1]), ([2, 2], [1]), ([2, 2, 1], [1])]


def test_who_waits_for_company_does_not_keep_others_from_their_turn(clock: Clock) -> None:
    patient, other = Model(clock, max_delay=0.25), Model(clock)
    loop = hosted(clock, patient, other)
    patient.submit(1)
    other.submit(1)
    assert loop.turn() == 0.0
    assert (patient.batches, other.batches) == ([], [1])
    assert loop.turn() == pytest.approx(0.25)


def test_a_guest_that_was_released_has_no_turn(clock: Clock) -> None:
    model = Model(clock)
    loop = hosted(clock, model)
    model.submit(2)
    model.queue.close()
    assert loop.release(model.guest, None)
    assert loop.turn() is None


def test_a_turn_without_guests_or_requests_is_not_due_again(clock: Clock) -> None:
    assert hosted(clock).turn() is None
    assert hosted(clock, Model(clock)).turn() is None


def test_a_batch_that_waits_for_company_is_due_when_its_time_is_up(clock: Clock) -> None:
    model = Model(clock, max_delay=0.25)
    loop = hosted(clock, model)
    model.submit(1)
    assert loop.turn() == pytest.approx(0.25)
    assert model.batches == []
    clock.now += 0.25
    assert loop.turn() is None
    assert model.batches == [1]


def test_a_guest_that_fails_is_closed_and_told_and_the_others_go_on(clock: Clock) -> None:
    error = RuntimeError("the device is gone")
    broken, good = Model(clock, error=error), Model(clock)
    loop = hosted(clock, broken, good)
    broken.submit(1)
    good.submit(1)
    assert loop.turn() == 0.0
    assert loop.turn() is None
    assert (broken.closed, broken.lost) == (1, [error])
    assert good.batches == [1]
    assert loop.release(broken.guest, 0)
    assert broken.closed == 1


def test_releasing_runs_what_waits_and_closes_once(clock: Clock) -> None:
    model = Model(clock)
    loop = hosted(clock, model)
    model.submit(5)
    model.queue.close()
    assert loop.release(model.guest, None)
    assert model.batches == [2, 2, 1]
    assert model.closed == 1
    assert loop.release(model.guest, None)
    assert model.closed == 1


def test_releasing_does_not_wait_longer_than_it_may_for_a_run_that_never_ends(
    clock: Clock,
) -> None:
    entered, leave = threading.Event(), threading.Event()
    model = Model(clock)

    def held(_: Decision[Job]) -> None:
        entered.set()
        leave.wait(10)

    guest = Guest(model.queue, held, model.close, model.lost.append)
    loop = InlineLoop(clock)
    loop.host(guest)
    model.submit(1)
    turning = threading.Thread(target=loop.turn)
    turning.start()
    assert entered.wait(10)
    assert not loop.release(guest, 0.01)
    leave.set()
    turning.join(10)
    assert loop.release(guest, 10)
