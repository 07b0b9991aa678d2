"""Two batches under way: the order of their halves, and what an error of one does to the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from inferd_engines.engine import EngineError, Overlapping
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.job import Job
from inferd_server.batching.overlap import Overlap
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import EngineFailure

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine, OverlappingEngine
from tests.server.callers import Caller, job_of, rows_of


class Bench:
    """A queue in front of an engine, which runs until nothing waits."""

    def __init__(self, engine: OverlappingEngine, max_rows: int = 2) -> None:
        self.engine = engine
        self.clock = FakeClock()
        self.arena = Arena(64, 10**6)
        self.queue: BatchQueue[Job] = BatchQueue(BatchBounds(max_rows), self.clock)
        self.runner: Runner[Job] = Runner(engine, True, lambda _: None, self.clock)
        self.overlap = Overlap(self.queue, self.runner)

    def run(self, *requests: Sequence[float]) -> list[Caller]:
        """Run these until all are answered."""
        callers = [Caller() for _ in requests]
        for values, caller in zip(requests, callers, strict=True):
            assert self.queue.submit(job_of(self.arena, values, caller))
        self.queue.close()
        self.overlap.run()
        return callers


def test_only_an_engine_that_has_both_halves_overlaps() -> None:
    assert isinstance(OverlappingEngine(), Overlapping)
    assert not isinstance(FakeEngine(), Overlapping)


def test_a_full_batch_begins_before_the_last_one_has_ended() -> None:
    bench = Bench(OverlappingEngine())
    callers = bench.run([1.0], [2.0], [3.0], [4.0], [5.0, 6.0])
    outputs = [caller.output for caller in callers]
    assert outputs == [rows_of(2), rows_of(4), rows_of(6), rows_of(8), rows_of(10, 12)]
    assert bench.engine.steps == ["begin 2", "begin 2", "finish 2", "begin 2", *["finish 2"] * 2]
    assert bench.arena.rows == 0


def test_a_batch_that_may_still_grow_waits_for_the_end_of_the_last_one() -> None:
    bench = Bench(OverlappingEngine())
    callers = bench.run([1.0], [2.0], [3.0])
    assert callers[2].output == rows_of(6)
    assert bench.engine.steps == ["begin 2", "finish 2", "begin 1", "finish 1"]


def test_a_request_beyond_the_largest_bucket_runs_as_a_whole() -> None:
    bench = Bench(OverlappingEngine(buckets=(1, 2)))
    callers = bench.run([1.0], [2.0], [3.0, 4.0, 5.0])
    assert callers[2].output == rows_of(6, 8, 10)
    assert bench.engine.steps == ["begin 2", "finish 2"]


@pytest.mark.parametrize("half", ["begin", "finish"])
def test_a_batch_that_fails_runs_again_in_parts_and_its_neighbour_goes_on(half: str) -> None:
    engine = OverlappingEngine()
    bench = Bench(engine)
    failure = EngineError("no memory")
    if half == "begin":
        engine.refusals.append(failure)
    else:
        engine.fail(failure)
    callers = bench.run([1.0], [2.0], [3.0], [4.0])
    assert [caller.output for caller in callers] == [rows_of(2 * n) for n in (1.0, 2.0, 3.0, 4.0)]
    assert bench.arena.rows == 0


def test_after_a_fatal_error_nothing_that_was_taken_stays_without_an_answer() -> None:
    engine = OverlappingEngine()
    bench = Bench(engine)
    engine.fail(EngineError("the device is gone", fatal=True))
    callers = [Caller() for _ in range(5)]
    for caller in callers:
        assert bench.queue.submit(job_of(bench.arena, [1.0], caller))
    with pytest.raises(EngineError, match="the device is gone"):
        bench.overlap.run()
    assert engine.steps == ["begin 2", "begin 2", "finish 2"]
    assert all(isinstance(caller.error, EngineFailure) for caller in callers[:4])
    # It waits, for whoever ends the queue.
    assert callers[4].answers == 0


def test_an_engine_is_busy_once_however_many_batches_are_under_way() -> None:
    bench = Bench(OverlappingEngine())
    runner, clock = bench.runner, bench.clock
    jobs = [job_of(bench.arena, [1.0], Caller()) for _ in range(2)]
    batches = []
    for job in jobs:
        batches.append(runner.begin(Decision(run=(job,))))
        clock.advance(1.0)
    assert runner.busy(clock()) == 2.0
    for batch in batches:
        assert batch is not None
        runner.finish(batch)
        clock.advance(0.5)
    # Half a second more until the second one ended, and none from then on.
    assert runner.busy(clock()) == 2.5
