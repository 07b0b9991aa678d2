"""Which errors of an engine end the process, and when: before anything else is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from inferd_engines.engine import Engine, EngineError, EngineOptions, Overlapping
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.job import Job
from inferd_server.batching.overlap import Overlap
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import EngineFailure, ModelNotReady

from tests.engines.tensorrt.bench import Bench as TensorRTBench
from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, OverlappingEngine, double
from tests.server.callers import Caller, job_of, rows_of
from tests.server.models.bench import Bench

GONE = EngineError("the device is gone", fatal=True)


class Process:
    """Remembers what it was told to end of, and who had an answer then."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.answers: list[int] = []
        self.caller = Caller()

    def end(self, error: EngineError) -> None:
        self.ends.append(str(error))
        self.answers.append(self.caller.answers)


def run_one(engine: Engine, process: Process) -> Caller:
    """Run a request of the value 1."""
    clock = FakeClock()
    runner: Runner[Job] = Runner(engine, True, lambda _: None, clock, end=process.end)
    caller = process.caller = Caller()
    job = job_of(Arena(4, 1000), [1.0], caller)
    if not isinstance(engine, Overlapping):
        runner(Decision(run=(job,)))
        return caller
    queue: BatchQueue[Job] = BatchQueue(BatchBounds(4), clock)
    assert queue.submit(job)
    queue.close()
    Overlap(queue, runner).run()
    return caller


def test_a_fatal_error_of_a_run_ends_the_process_and_another_one_does_not() -> None:
    engine, process = FakeEngine(), Process()
    engine.fail(EngineError("such a value"))
    assert isinstance(run_one(engine, process).error, EngineFailure)
    assert run_one(engine, process).output == rows_of(2.0)
    assert process.ends == []
    engine.fail(GONE)
    with pytest.raises(EngineError, match="the device is gone"):
        run_one(engine, process)
    assert (process.ends, process.answers) == (["the device is gone"], [0])
    assert not engine.closed


@pytest.mark.parametrize("half", ["begin", "finish"])
def test_a_fatal_error_of_either_half_of_a_run_ends_the_process(half: str) -> None:
    engine, process = OverlappingEngine(), Process()
    assert run_one(engine, process).output == rows_of(2.0)
    if half == "begin":
        engine.refusals.append(GONE)
    else:
        engine.fail(GONE)
    with pytest.raises(EngineError, match="the device is gone"):
        run_one(engine, process)
    assert (process.ends, process.answers) == (["the device is gone"], [0])


def test_a_sticky_error_of_tensorrt_ends_the_process_and_frees_nothing() -> None:
    bench, process = TensorRTBench(), Process()
    engine = bench.open(DOUBLING, double)
    bench.standin.break_context()
    with pytest.raises(EngineError, match="illegal memory access"):
        run_one(engine, process)
    (end,) = process.ends
    assert "illegal memory access" in end
    bench.close()


class Cold(FakeEngine):
    """Fails for good when it is warmed."""

    def warm(self, rows: int) -> None:
        raise GONE


class Slow(FakeEngine):
    """Fails for good when it is warmed for the second time, to see how long it takes."""

    def warm(self, rows: int) -> None:
        if self.warmed:
            raise GONE
        super().warm(rows)


class Mixing(FakeEngine):
    """Fails for good when its rows are tried."""

    def __init__(self) -> None:
        super().__init__()
        self.fail(GONE)


@pytest.mark.parametrize("kind", [Cold, Slow, Mixing])
def test_a_fatal_error_before_a_model_serves_ends_the_process_with_its_engine_open(
    kind: Callable[[], FakeEngine], tmp_path: Path
) -> None:
    opened: list[FakeEngine] = []
    ends: list[tuple[str, bool]] = []

    def open_one(_path: Path, _options: EngineOptions) -> Engine:
        opened.append(kind())
        return opened[0]

    bench = Bench(tmp_path, open_one, end=lambda error: ends.append((str(error), opened[0].closed)))
    bench.add("m", 1)
    bench.repository.load_all()
    assert ends == [("the device is gone", False)]
    with pytest.raises(ModelNotReady, match="the device is gone"):
        bench.repository.resolve("m", "")
    bench.close()


@pytest.mark.parametrize(("fatal", "ends"), [(True, ["no"]), (False, [])])
def test_a_fatal_error_of_opening_ends_the_process(
    fatal: bool, ends: list[str], tmp_path: Path
) -> None:
    def refuse(_path: Path, _options: EngineOptions) -> Engine:
        raise EngineError("no", fatal=fatal)

    process = Process()
    bench = Bench(tmp_path, refuse, end=process.end)
    bench.add("m", 1)
    bench.repository.load_all()
    assert process.ends == ends
    bench.close()
