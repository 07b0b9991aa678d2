"""Running a batch: every caller gets the answer to its own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.tensors import Array
from inferd_engines.engine import EngineError, Signature, Tensor
from inferd_server.batching.decision import Decision
from inferd_server.batching.job import Job
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import Cancelled, DeadlinePassed, EngineFailure, InvalidInput
from inferd_server.monitoring.phases import Execution, Phases

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, double
from tests.server.callers import Caller, job_of, rows_of

FIXED = Signature(
    inputs=(Tensor("INPUT0", np.dtype(np.float32), (2, 4)),),
    outputs=(Tensor("OUTPUT0", np.dtype(np.float32), (2, 4)),),
)


class Bench:
    """A runner on a fake engine, with callers in a row."""

    def __init__(self, engine: FakeEngine, batched: bool = True) -> None:
        self.engine = engine
        self.batched = batched
        self.clock = FakeClock()
        self.arena = Arena(64, 10**6)
        self.executions: list[Execution] = []
        self.run: Runner[Job] = Runner(engine, batched, self.executions.append, self.clock)

    def jobs(self, *requests: Sequence[float]) -> tuple[tuple[Job, ...], list[Caller]]:
        callers = [Caller() for _ in requests]
        jobs = [
            job_of(self.arena, values, caller, batched=self.batched)
            for values, caller in zip(requests, callers, strict=True)
        ]
        return tuple(jobs), callers


def refuse(value: float) -> FakeEngine:
    """An engine that fails on every batch with this value in it."""

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if (inputs["INPUT0"] == value).any():
            raise EngineError("such a value")
        return double(inputs)

    return FakeEngine(DOUBLING, compute)


def test_who_sent_bad_values_is_told_why_and_the_neighbours_are_answered() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if (inputs["INPUT0"] == 13).any():
            raise EngineError("13 is out of range", bad_input=True)
        return double(inputs)

    bench = Bench(FakeEngine(DOUBLING, compute))
    jobs, (before, bad, after) = bench.jobs([1.0], [13.0], [3.0])
    bench.run(Decision(run=jobs))
    assert [before.output, after.output] == [rows_of(2), rows_of(6)]
    assert isinstance(bad.error, InvalidInput)
    assert str(bad.error) == "the model cannot run on this input: 13 is out of range"


@given(st.lists(st.lists(st.integers(0, 10**6).map(float), min_size=1, max_size=5), min_size=1))
def test_outputs_go_to_the_callers_of_their_rows(requests: list[list[float]]) -> None:
    bench = Bench(FakeEngine())
    jobs, callers = bench.jobs(*requests[:10])
    bench.run(Decision(run=jobs))
    for values, caller in zip(requests, callers, strict=False):
        assert caller.output == rows_of(*(2 * value for value in values))
    assert len(bench.engine.batches) == 1
    assert bench.arena.rows == 0


def test_outputs_go_to_the_right_callers_when_the_rows_are_not_neighbours() -> None:
    bench = Bench(FakeEngine())
    jobs, callers = bench.jobs([1.0], [2.0, 3.0], [4.0])
    bench.run(Decision(run=(jobs[2], jobs[1], jobs[0])))
    assert [c.output for c in callers] == [rows_of(2), rows_of(4, 6), rows_of(8)]


def test_a_request_fails_alone() -> None:
    bench = Bench(refuse(7.0))
    jobs, callers = bench.jobs([1.0], [2.0, 7.0], [3.0, 4.0])
    bench.run(Decision(run=jobs))
    assert callers[0].output == rows_of(2)
    assert isinstance(callers[1].error, EngineFailure)
    assert callers[2].output == rows_of(6, 8)
    assert bench.arena.rows == 0


def test_a_request_that_fails_among_many_costs_its_neighbours_few_runs() -> None:
    bench = Bench(refuse(7.0))
    jobs, callers = bench.jobs(*([float(value)] for value in range(32)))
    bench.run(Decision(run=jobs))
    assert isinstance(callers.pop(7).error, EngineFailure)
    assert [c.output for c in callers] == [rows_of(2.0 * n) for n in range(32) if n != 7]
    # Two for each time that what failed is halved.
    assert len(bench.engine.batches) == 1 + 2 * 5


def test_the_caller_is_told_no_details(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(refuse(7.0))
    jobs, (caller,) = bench.jobs([7.0])
    bench.run(Decision(run=jobs))
    assert "such a value" not in str(caller.error)
    assert [vars(record)["error"] for record in caplog.records] == ["such a value"]


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError()])
def test_an_unforeseen_error_is_like_any_other(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(FakeEngine())
    bench.engine.fail(error)
    jobs, callers = bench.jobs([1.0], [2.0])
    bench.run(Decision(run=jobs))
    assert [c.output for c in callers] == [rows_of(2), rows_of(4)]
    assert caplog.records[0].exc_info


def test_who_went_away_while_a_batch_failed_is_not_run_again() -> None:
    def compute(_: Mapping[str, Array]) -> Mapping[str, Array]:
        jobs[0].cancelled = True
        bench.clock.advance(5.0)
        raise EngineError("once more")

    bench = Bench(FakeEngine(DOUBLING, compute))
    jobs, callers = bench.jobs([1.0], [2.0], [3.0])
    jobs[1].deadline = 5.0
    bench.run(Decision(run=jobs))
    kinds = [type(caller.error) for caller in callers]
    assert kinds == [Cancelled, DeadlinePassed, EngineFailure]
    assert [batch.rows for batch in bench.engine.batches] == [3, 1]


def test_a_fatal_error_answers_everyone_and_ends_the_instance() -> None:
    bench = Bench(FakeEngine())
    bench.engine.fail(EngineError("the device is gone", fatal=True))
    jobs, callers = bench.jobs([1.0], [2.0])
    with pytest.raises(EngineError, match="the device is gone"):
        bench.run(Decision(run=jobs))
    assert all(isinstance(caller.error, EngineFailure) for caller in callers)
    assert len(bench.engine.batches) == 1
    assert bench.arena.rows == 0


def test_a_fatal_error_while_requests_run_alone_answers_everyone() -> None:
    bench = Bench(FakeEngine())
    bench.engine.fail(EngineError("a batch"))
    bench.engine.fail(EngineError("the device is gone", fatal=True))
    jobs, callers = bench.jobs([1.0], [2.0], [3.0])
    with pytest.raises(EngineError, match="the device is gone"):
        bench.run(Decision(run=jobs))
    assert all(isinstance(caller.error, EngineFailure) for caller in callers)
    assert len(bench.engine.batches) == 2


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (4, 4)])
def test_an_output_without_a_row_for_each_row_is_an_error(shape: tuple[int, ...]) -> None:
    bench = Bench(FakeEngine(DOUBLING, lambda _: {"OUTPUT0": np.ones(shape, np.float32)}))
    jobs, callers = bench.jobs([1.0, 2.0], [3.0, 4.0, 5.0])
    bench.run(Decision(run=jobs))
    assert all(isinstance(caller.error, EngineFailure) for caller in callers)


def test_a_model_without_a_batch_dimension_runs_as_it_is() -> None:
    bench = Bench(FakeEngine(FIXED), batched=False)
    jobs, (caller,) = bench.jobs([1.0, 2.0])
    bench.run(Decision(run=jobs))
    assert caller.output == rows_of(2, 4)
    (batch,) = bench.engine.batches
    assert (batch.rows, batch.inputs["INPUT0"].shape) == (1, (2, 4))


def test_what_is_dropped_is_answered_with_its_reason_and_not_run() -> None:
    bench = Bench(FakeEngine())
    jobs, callers = bench.jobs([1.0], [2.0], [3.0])
    jobs[0].cancelled = True
    bench.run(Decision(run=jobs[2:], drop=jobs[:2]))
    assert isinstance(callers[0].error, Cancelled)
    assert isinstance(callers[1].error, DeadlinePassed)
    assert callers[2].output == rows_of(6)
    assert [batch.rows for batch in bench.engine.batches] == [1]


def test_nothing_to_run_runs_nothing() -> None:
    bench = Bench(FakeEngine())
    bench.run(Decision())
    assert (bench.engine.batches, bench.executions) == ([], [])


def test_phases_tell_where_the_time_went() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        bench.clock.advance(4.0)
        return double(inputs)

    bench = Bench(FakeEngine(DOUBLING, compute))
    jobs, callers = bench.jobs([1.0], [2.0, 3.0])
    jobs[0].arrived, jobs[1].arrived = 1.0, 2.5
    bench.clock.advance(10.0)
    bench.run(Decision(run=jobs, waited=0.5))
    execution = Execution(rows=3, waited=0.5, gather=0.0, compute=4.0, queued=9.0)
    assert bench.executions == [execution]
    assert [caller.phases for caller in callers] == [
        [Phases(9.0, execution)],
        [Phases(7.5, execution)],
    ]


def test_a_failed_batch_is_no_execution() -> None:
    bench = Bench(refuse(7.0))
    jobs, _ = bench.jobs([1.0], [7.0])
    bench.run(Decision(run=jobs))
    assert [execution.rows for execution in bench.executions] == [1]


def test_an_engine_is_busy_while_it_runs_and_while_it_fails() -> None:
    seen: list[float] = []

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        bench.clock.advance(4.0)
        seen.append(bench.run.busy(bench.clock()))
        if len(seen) == 1:
            raise EngineError("no memory")
        return double(inputs)

    bench = Bench(FakeEngine(DOUBLING, compute))
    jobs, _ = bench.jobs([1.0], [2.0])
    assert bench.run.busy(0.0) == 0.0
    bench.run(Decision(run=jobs))
    # The batch failed, and its halves ran.
    assert seen == [4.0, 8.0, 12.0]
    bench.clock.advance(50.0)
    assert bench.run.busy(bench.clock()) == 12.0
