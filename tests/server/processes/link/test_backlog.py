"""What fronts know of the rows that wait in the worker is as it is now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from inferd_server.batching.slots import Arena
from inferd_server.errors import WorkerLost
from inferd_server.inference.deadline_admission import rows_before
from inferd_server.processes.link.layout import MODELS

from tests.fakes.engine import FakeEngine
from tests.server.callers import ANSWERED_WITHIN, Caller
from tests.server.processes.link.bench import Bench, Front, Target, bench


class Known:
    """What a front knows of one model."""

    def __init__(self, front: Front, target: Target) -> None:
        self._front = front
        self._target = target

    @property
    def waiting(self) -> int:
        """Rows of all fronts that wait in the worker."""
        return self._front.link.waiting_rows(self._target.number)

    @property
    def before(self) -> int:
        """Rows that a request would wait for."""
        queue = SimpleNamespace(rows=self.waiting)
        plan: Any = SimpleNamespace(arena=self._front.arena, handle=SimpleNamespace(queue=queue))
        return rows_before(plan)


class Busy:
    """Two fronts and a worker, whose engine is held in a run of the first front."""

    def __init__(self, made: Bench) -> None:
        self.bench = made
        self.engine = FakeEngine()
        self.target = made.serve(self.engine)
        self.first, self.second = made.fronts
        self.engine.hold()
        self.runs = self.first.send(self.target, 1.0)
        assert self.engine.running.wait(ANSWERED_WITHIN)

    def knows(self, front: Front) -> Known:
        return Known(front, self.target)

    def collect(self) -> None:
        """Let the worker find what was sent, as an instance does that becomes free."""
        with self.bench.inbox.lock:
            self.bench.inbox.collect()


@pytest.fixture
def busy() -> Any:
    with bench(2) as made:
        found = Busy(made)
        try:
            yield found
        finally:
            found.engine.release()


def cancel(front: Front, caller: Caller) -> None:
    """Let a caller go away."""
    (job,) = [p.job for p in front.link._pending if p and p.job._caller is caller]  # type: ignore[attr-defined]
    front.link.cancel(job)


def test_every_front_knows_what_waits_for_a_model_and_the_answers_take_it_away(busy: Busy) -> None:
    callers = [busy.second.send(busy.target, 2.0, 3.0), busy.first.send(busy.target, 4.0)]
    busy.collect()
    first, second = busy.knows(busy.first), busy.knows(busy.second)
    assert (first.waiting, second.waiting) == (3, 3)
    # The first front's own: one that runs and one that waits, and the other one's two.
    assert second.before == 3
    assert first.before == 3
    busy.engine.release()
    for caller in (busy.runs, *callers):
        caller.wait()
    assert (first.waiting, second.waiting, first.before, second.before) == (0, 0, 0, 0)


def test_requests_that_were_cancelled_count_no_more_though_the_engine_is_busy(busy: Busy) -> None:
    callers = [busy.first.send(busy.target, 2.0, 3.0) for _ in range(5)]
    busy.collect()
    known = busy.knows(busy.first)
    assert known.before == 11
    for caller in callers[:4]:
        cancel(busy.first, caller)
    # What runs, runs on.
    assert known.before == 3
    cancel(busy.first, busy.runs)
    assert known.before == 3
    cancel(busy.first, callers[4])
    busy.engine.release()
    for caller in callers:
        caller.wait()
    assert (known.waiting, known.before, busy.first.arena.rows) == (0, 0, 0)


def test_nothing_is_known_of_what_waited_for_a_model_that_was_unloaded_or_a_worker_that_died(
    busy: Busy,
) -> None:
    lost = busy.second.send(busy.target, 2.0)
    busy.collect()
    known = busy.knows(busy.second)
    assert known.waiting == 1
    busy.bench.inbox.detach(1)
    for one in busy.second.link.take_back():
        one.job.fail(WorkerLost("gone"))
    assert (known.waiting, lost.answers) == (0, 1)
    busy.bench.inbox.attach(1)
    again = busy.second.send(busy.target, 3.0)
    busy.collect()
    assert known.waiting == 1
    (queue,) = busy.bench.queues
    for request in queue.drain():
        request.fail(WorkerLost("unloaded"))
    again.wait()
    assert known.waiting == 0


def test_a_front_that_comes_later_learns_what_waits_already(busy: Busy) -> None:
    busy.bench.inbox.detach(1)
    busy.second.link.take_back()
    waits = busy.first.send(busy.target, 2.0, 3.0)
    busy.collect()
    busy.bench.inbox.attach(1)
    assert busy.knows(busy.second).waiting == 2
    busy.engine.release()
    waits.wait()


def test_what_is_told_of_a_model_is_not_taken_for_another_ones(busy: Busy) -> None:
    waits = busy.first.send(busy.target, 2.0)
    busy.collect()
    other = Target(busy.target.number + MODELS)
    assert busy.first.link.waiting_rows(other.number) == 0
    busy.engine.release()
    waits.wait()


def test_rows_that_are_given_up_stay_held_until_they_are_freed() -> None:
    arena = Arena(2, 1 << 12)
    slot = arena.reserve([], 2, 0)
    slot.give_up()
    slot.give_up()
    assert (arena.rows, arena.wanted) == (2, 0)
    slot.free()
    slot.give_up()
    assert (arena.rows, arena.wanted) == (0, 0)
