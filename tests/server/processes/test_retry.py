"""Requests whose worker dies: sent again once, alone if they ran, and answered exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd_server.batching.job import Job
from inferd_server.errors import (
    Cancelled,
    HandleRetired,
    InvalidInput,
    ModelNotReady,
    QueueFull,
    SequenceNotFound,
    WorkerLost,
)
from inferd_server.inference.infer_request import cancel
from inferd_server.processes.front_links import FrontLinks
from inferd_server.processes.quarantine import Quarantine, fingerprint
from inferd_server.processes.retry import RetryingLink

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.server.callers import Caller, job_of, rows_of
from tests.server.processes.link.bench import LAYOUT, Bench, Target, bench

WITHIN = 30.0
REASON = "the worker process was lost"


class Line:
    """Where a job is withdrawn from."""

    def __init__(self, retrying: RetryingLink) -> None:
        self.withdraw = retrying.withdraw


class Rig:
    """A front and its workers, which die and are replaced when a test says so."""

    def __init__(self, made: Bench, wait_s: float = 10.0) -> None:
        self.bench = made
        self.front = made.fronts[0]
        self.clock = FakeClock(1.0)
        self.passed = 0.0
        self.quarantine = Quarantine(60.0, self.clock)
        self.later: list[Callable[[], None]] = []
        self.found: list[bytes] = []
        self.engines: list[FakeEngine] = []
        self.jobs: dict[int, Job] = {}
        self.retrying = RetryingLink(
            FrontLinks([self.front.link]),
            self.quarantine,
            wait_s,
            lambda: time.monotonic() + self.passed,
            lambda _, task: self.later.append(task),
            lambda mark, _: self.found.append(mark),
        )
        self.target = self.serve()
        self.ran: Mapping[tuple[str, int], int] = {}

    def serve(self) -> Target:
        """Put a model on an engine of its own."""
        self.engines.append(FakeEngine())
        return self.bench.serve(self.engines[-1])

    @property
    def engine(self) -> FakeEngine:
        return self.engines[-1]

    def send(self, *values: float, deadline: float | None = None, sequence: int = 0) -> Caller:
        caller = Caller()
        arrived = time.monotonic()
        job = job_of(self.front.arena, values, caller, arrived=arrived, deadline=deadline)
        job.sequence = sequence
        self.jobs[id(caller)] = job
        assert self.retrying.submit(job, self.target)
        return caller

    def running(self, *values: float, sequence: int = 0) -> Caller:
        """Send a request and return once it runs; the engine stays held."""
        self.engine.hold()
        caller = self.send(*values, sequence=sequence)
        assert self.engine.running.wait(WITHIN)
        return caller

    def cancel(self, caller: Caller) -> None:
        cancel(Line(self.retrying), self.jobs[id(caller)])  # type: ignore[arg-type]

    def die(self) -> None:
        """The worker is gone: it touches the memory no more."""
        self.target.closed = self.target.returning = True
        self.bench.inbox.detach(0)
        self.ran = self.retrying.lose(REASON)

    def begin(self, held: bool = False) -> None:
        """The next worker has loaded the model, whose first run may be held."""
        self.target = self.serve()
        if held:
            self.engine.hold()
        self.retrying.settle(lambda _: self.target)
        # Last, so that it finds all of them at once.
        self.bench.inbox.attach(0)

    def end(self) -> None:
        """Let everything be answered."""
        for engine in self.engines:
            engine.release()
        self.wait(1000.0)

    def wait(self, seconds: float) -> None:
        """Let time pass, and do what was put off until then."""
        self.passed += seconds
        due, self.later = self.later, []
        for task in due:
            task()


def values(engine: FakeEngine) -> list[list[float]]:
    """Return the first number of every row of every batch."""
    return [batch.inputs["INPUT0"][:, 0].tolist() for batch in engine.batches]


@contextmanager
def rig(wait_s: float = 10.0) -> Iterator[Rig]:
    with bench() as made:
        found = Rig(made, wait_s)
        try:
            yield found
        finally:
            found.end()


def test_what_ran_and_what_waited_is_answered_by_the_next_worker_and_once() -> None:
    with rig() as made:
        callers = [made.running(1.0), made.send(2.0), made.send(3.0, 4.0)]
        made.die()
        assert [caller.answers for caller in callers] == [0, 0, 0]
        made.begin()
        for caller, values in zip(callers, [(2,), (4,), (6, 8)], strict=True):
            assert caller.wait().output == rows_of(*values)
        made.engines[0].release()
        assert [caller.answers for caller in callers] == [1, 1, 1]


def test_the_rows_that_ran_when_a_worker_died_are_told_by_model() -> None:
    with rig() as made:
        callers = [made.running(1.0, 2.0, 3.0), made.send(4.0)]
        made.die()
        assert made.ran == {(made.target.name, made.target.version): 3}
        made.begin()
        for caller in callers:
            caller.wait()
        made.die()
        assert made.ran == {}
        made.engines[0].release()


def test_what_ran_is_sent_last_and_runs_alone() -> None:
    with rig() as made:
        callers = [made.running(3.0), made.send(4.0), made.send(5.0)]
        made.die()
        made.begin()
        assert [caller.wait().output for caller in callers] == [rows_of(v) for v in (6, 8, 10)]
        assert values(made.engine) == [[4.0, 5.0], [3.0]]


def test_requests_that_ran_together_run_apart_afterwards() -> None:
    with rig() as made:
        callers = [made.running(0.0), *(made.send(value) for value in (1.0, 2.0, 3.0))]
        made.die()
        made.begin(held=True)
        assert made.engine.running.wait(WITHIN)
        made.die()
        made.begin()
        assert [caller.wait().output for caller in callers] == [rows_of(v) for v in (0, 2, 4, 6)]
        assert values(made.engines[1]) == [[1.0, 2.0, 3.0]]
        assert values(made.engine) == [[0.0], [1.0], [2.0], [3.0]]


def test_a_request_that_ends_two_workers_is_refused_from_then_on_and_others_are_not() -> None:
    with rig() as made:
        poison = made.running(6.0)
        made.die()
        made.begin(held=True)
        assert made.engine.running.wait(WITHIN)
        made.die()
        error = poison.wait().error
        assert isinstance(error, InvalidInput)
        assert error.reason == "QUARANTINED"
        assert made.found == [mark for mark, _ in made.quarantine.marks()]
        made.begin()
        assert made.send(6.0).wait().error.reason == "QUARANTINED"
        assert made.send(6.5).wait().output == rows_of(13)
        made.clock.advance(61.0)
        assert made.send(6.0).wait().output == rows_of(12)


def test_a_request_that_never_began_is_not_charged_with_the_death_of_a_worker() -> None:
    with rig() as made:
        made.running(6.0)
        waiting = made.send(1.0)
        for _ in range(3):
            made.die()
            made.target = made.serve()
            # Attached to nobody: nothing begins.
            made.retrying.settle(lambda _: made.target)
        made.die()
        assert waiting.answers == 0
        made.begin()
        assert waiting.wait().output == rows_of(2)
        assert made.found == []


def test_what_waits_too_long_is_answered_with_what_happened() -> None:
    with rig() as made:
        caller = made.running(1.0)
        made.die()
        made.wait(10.0)
        error = caller.wait().error
        assert isinstance(error, WorkerLost)
        assert "no other one served its model within 10 s" in str(error)
        assert error.facts == {"sent": "1", "began": "1"}
        made.begin()
        assert made.send(2.0).wait().output == rows_of(4)
        assert values(made.engine) == [[2.0]]


def test_nothing_is_sent_again_where_that_is_off_or_no_time_is_left() -> None:
    with rig(wait_s=0.0) as made:
        caller = made.running(1.0)
        made.die()
        assert isinstance(caller.wait().error, WorkerLost)
    with rig() as made:
        made.running(1.0)
        hurried = made.send(2.0, deadline=time.monotonic() + 0.5)
        patient = made.send(3.0, deadline=time.monotonic() + 60)
        made.die()
        assert isinstance(hurried.wait().error, WorkerLost)
        made.begin()
        assert patient.wait().output == rows_of(6)


def test_steps_of_sequences_are_not_sent_again_and_their_callers_are_told_at_once() -> None:
    with rig() as made:
        steps = [made.running(1.0, sequence=7), made.send(2.0, sequence=7)]
        other = made.send(3.0)
        made.die()
        # Those that ran and those that waited alike: what they build on is gone.
        for step in steps:
            error = step.wait().error
            assert isinstance(error, SequenceNotFound)
            assert str(error).startswith("the worker process was lost, and the sequence with it")
        assert made.retrying.held == 1
        late = made.send(4.0, sequence=7)
        assert isinstance(late.wait().error, SequenceNotFound)
        made.begin()
        assert other.wait().output == rows_of(6)
        assert values(made.engine) == [[3.0]]


def test_a_caller_who_goes_away_while_the_request_waits_frees_it_at_once() -> None:
    with rig() as made:
        made.running(1.0)
        gone = made.send(2.0)
        made.die()
        made.cancel(gone)
        assert isinstance(gone.wait().error, Cancelled)
        assert made.retrying.held == 1
        made.begin()
        made.wait(10.0)
        assert gone.answers == 1


def test_a_caller_who_went_away_before_is_not_waited_for() -> None:
    with rig() as made:
        made.running(1.0)
        gone = made.send(2.0)
        made.cancel(gone)
        made.die()
        assert isinstance(gone.wait().error, Cancelled)


def test_what_the_dead_worker_answered_is_not_run_again() -> None:
    with rig() as made:
        made.front.consumes.clear()
        caller = made.send(1.0)
        assert made.engine.running.wait(WITHIN)
        # Once the next one runs, the first has been answered.
        made.engine.running.clear()
        made.engine.hold()
        second = made.send(2.0)
        assert made.engine.running.wait(WITHIN)
        made.die()
        assert caller.wait().output == rows_of(2)
        assert (caller.answers, second.answers, made.retrying.held) == (1, 0, 1)
        made.front.consumes.set()
        made.begin()
        assert second.wait().output == rows_of(4)


def test_what_meets_a_line_that_closed_just_now_is_admitted_anew() -> None:
    with rig() as made:
        caller = made.running(1.0)
        made.die()
        closed = Target(9, closed=True)
        made.retrying.settle(lambda _: closed)
        assert isinstance(caller.wait().error, HandleRetired)
        made.begin()


def test_what_comes_while_no_worker_lives_waits_for_the_next_one() -> None:
    with rig() as made:
        made.die()
        callers = [made.send(1.0), made.send(2.0, 3.0)]
        assert ([caller.answers for caller in callers], made.retrying.held) == ([0, 0], 2)
        made.begin()
        assert [caller.wait().output for caller in callers] == [rows_of(2), rows_of(4, 6)]
        assert made.retrying.held == 0


def test_what_comes_while_no_worker_lives_waits_through_the_death_of_another_one() -> None:
    with rig() as made:
        made.die()
        first = made.send(1.0)
        made.target = made.serve()
        made.die()
        second = made.send(2.0)
        made.begin()
        assert [first.wait().output, second.wait().output] == [rows_of(2), rows_of(4)]


def test_each_request_waits_for_a_worker_as_long_as_it_may() -> None:
    with rig() as made:
        made.die()
        first = made.send(1.0)
        made.wait(6.0)
        second = made.send(2.0)
        made.wait(6.0)
        assert isinstance(first.wait().error, WorkerLost)
        assert "may be sent again" in str(first.error)
        assert second.answers == 0
        made.begin()
        assert second.wait().output == rows_of(4)


def test_what_comes_while_no_worker_lives_is_refused_at_once_where_nothing_waits() -> None:
    with rig(wait_s=0.0) as made:
        made.die()
        assert isinstance(made.send(1.0).wait().error, WorkerLost)
    with rig() as made:
        made.die()
        assert isinstance(made.send(1.0, deadline=time.monotonic() + 0.5).error, WorkerLost)
        made.begin()


def test_no_more_requests_wait_for_a_worker_than_it_may_have() -> None:
    with rig() as made:
        made.die()
        callers = [made.send(float(n)) for n in range(LAYOUT.requests + 1)]
        assert isinstance(callers[-1].wait().error, QueueFull)
        made.begin()
        assert [c.wait().output for c in callers[:-1]] == [
            rows_of(2.0 * n) for n in range(LAYOUT.requests)
        ]


def test_what_waits_for_a_model_that_will_not_come_is_told_why() -> None:
    with rig() as made:
        made.die()
        caller = made.send(1.0)
        made.retrying.settle(lambda _: ModelNotReady("its file is damaged"))
        assert str(caller.wait().error) == "its file is damaged"
        made.begin()


def test_a_request_in_quarantine_does_not_reach_the_next_worker() -> None:
    with rig() as made:
        made.die()
        poison, other = made.send(6.0), made.send(7.0)
        made.quarantine.add(fingerprint("m", 1, made.jobs[id(poison)].slot.inputs))
        made.begin()
        assert poison.wait().error.reason == "QUARANTINED"
        assert other.wait().output == rows_of(14)


class Story:
    """Anything that may happen, in any order."""

    def __init__(self, made: Rig) -> None:
        self.rig = made
        self.callers: list[Caller] = []
        self.alive = True

    def send(self) -> None:
        self.callers.append(self.rig.send(float(len(self.callers))))

    def hold(self) -> None:
        self.rig.engine.hold()

    def release(self) -> None:
        self.rig.engine.release()

    def die(self) -> None:
        if self.alive:
            self.rig.die()
        self.alive = False

    def begin(self) -> None:
        if not self.alive:
            self.rig.begin()
        self.alive = True

    def cancel(self) -> None:
        for caller in self.callers[-1:]:
            self.rig.cancel(caller)

    def expire(self) -> None:
        self.rig.wait(6.0)


STEPS = [name for name in vars(Story) if not name.startswith("_")]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(STEPS)))
@pytest.mark.timeout(300)
def test_every_request_is_answered_once_whatever_happens(steps: list[str]) -> None:
    with rig() as made:
        story = Story(made)
        for step in steps:
            getattr(story, step)()
        story.begin()
        made.end()
        for number, caller in enumerate(story.callers):
            caller.wait()
            assert caller.errors or caller.output == rows_of(2.0 * number)
    assert [caller.answers for caller in story.callers] == [1] * len(story.callers)
