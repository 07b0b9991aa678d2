"""What the scheduler promises, under random arrivals, cancellations, time and failures."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from inferd_engines.engine import EngineError
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena, NoRoom
from inferd_server.batching.timers import Timers
from inferd_server.errors import Cancelled, DeadlinePassed, EngineFailure
from inferd_server.inference.infer_request import cancel, expire

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.server.callers import ROW, Caller, job_of, placed, rows_of

MAX_ROWS, MOST, LEVELS, HEAD_START = 20, 4, 3, 10.0
LEVEL_ROWS = {2: 5}
TICK = 1.0


class Promises(RuleBasedStateMachine):
    """A queue with bounds and priorities before an engine; time passes in ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(100.0)
        self.engine = FakeEngine()
        self.arena = Arena(MAX_ROWS, 10**6, level_rows=LEVEL_ROWS)
        limits = BatchBounds(MOST, 0.0, (1, 2, 4), LEVELS, HEAD_START)
        self.queue: BatchQueue[Job] = BatchQueue(limits, self.clock)
        self.run_batch: Runner[Job] = Runner(self.engine, True, lambda _: None, self.clock)
        self.alarms = Timers(self.clock, threaded=False)
        self.sent: list[tuple[Job, Caller, list[float]]] = []
        self.late: dict[int, float] = {}
        self.serial = 0

    @rule(
        rows=st.integers(1, 5),
        level=st.integers(0, LEVELS - 1),
        patience=st.none() | st.integers(1, 6),
    )
    def arrive(self, rows: int, level: int, patience: int | None) -> None:
        held = [job for job, caller, _ in self.sent if not job.slot.freed]
        of_level = sum(job.rows for job in held if job.level == level)
        fits = sum(job.rows for job in held) + rows <= MAX_ROWS and of_level + rows <= (
            LEVEL_ROWS.get(level, MAX_ROWS)
        )
        try:
            slot = self.arena.reserve(ROW, rows, 16 * rows, level)
        except NoRoom:
            assert not fits
            return
        assert fits
        values = [float(self.serial * 10 + row) for row in range(rows)]
        self.serial += 1
        slot.inputs[0][...] = rows_of(*values)
        now = self.clock()
        deadline = None if patience is None else now + patience
        caller = Caller()
        job = placed(slot, "key", now, deadline, caller, level)
        assert self.queue.submit(job)
        self.sent.append((job, caller, values))
        if deadline is not None:
            job.watch(self.alarms.at(deadline, lambda: expire(self.queue, job)))

    @rule()
    def tick(self) -> None:
        self.clock.advance(TICK)
        self.alarms.ring()

    @precondition(lambda self: self.queue.rows)
    @rule(fails=st.booleans())
    def run(self, fails: bool) -> None:
        self.engine.batches.clear()
        if fails:
            self.engine.fail(EngineError("once"))
        waiting = {id(job): job for job, _, _ in self.sent if not job.answered}
        decision = self.queue.take()
        assert decision is not None
        now = self.clock()
        assert all(job.deadline is None or now < job.deadline for job in decision.run)
        assert not any(job.cancelled for job in decision.run)
        rows = sum(job.rows for job in decision.run)
        assert rows <= MOST or len(decision.run) == 1
        # Nobody is overtaken by who came later than the head start of its priority allows.
        left = [job for key, job in waiting.items() if job not in decision.run]
        for job in decision.run:
            for other in left:
                gone = other.cancelled or (other.deadline is not None and now >= other.deadline)
                due = other.arrived + other.level * HEAD_START
                assert gone or job.arrived + job.level * HEAD_START <= due
        self.run_batch(decision)

    @precondition(lambda self: any(not job.answered for job, _, _ in self.sent))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job, _, _ = data.draw(st.sampled_from([sent for sent in self.sent if not sent[0].answered]))
        cancel(self.queue, job)

    @invariant()
    def every_answer_is_the_right_one_and_the_only_one(self) -> None:
        for job, caller, values in self.sent:
            assert caller.answers <= 1
            if caller.outputs:
                assert caller.output == rows_of(*(2 * value for value in values))
            for error in caller.errors:
                assert isinstance(error, Cancelled | DeadlinePassed | EngineFailure)
                assert isinstance(error, DeadlinePassed) <= (job.deadline is not None)

    @invariant()
    def nobody_is_without_an_answer_at_the_deadline(self) -> None:
        now = self.clock()
        for job, caller, _ in self.sent:
            if job.deadline is not None and now >= job.deadline:
                assert caller.answers == 1

    @invariant()
    def rows_are_held_by_those_without_an_answer_only(self) -> None:
        held = sum(job.rows for job, caller, _ in self.sent if not caller.answers)
        assert self.arena.rows == held <= MAX_ROWS
        assert self.queue.rows == held

    def teardown(self) -> None:
        self.queue.close()
        while (decision := self.queue.take()) is not None:
            self.run_batch(decision)
        assert all(caller.answers == 1 for _, caller, _ in self.sent)
        assert self.arena.rows == 0


TestPromises = Promises.TestCase


def test_the_rows_of_a_request_that_runs_at_its_deadline_stay_until_the_engine_is_done() -> None:
    arena, caller = Arena(4, 1000), Caller()
    job = job_of(arena, [1.0], caller)
    queue: BatchQueue[Job] = BatchQueue(BatchBounds(4), FakeClock())
    queue.submit(job)
    decision = queue.take()
    assert decision is not None
    expire(queue, job)
    assert isinstance(caller.error, DeadlinePassed)
    assert arena.rows == 1
    runner: Runner[Job] = Runner(FakeEngine(), True, lambda _: None, FakeClock())
    runner(decision)
    assert caller.answers == 1
    assert arena.rows == 0
