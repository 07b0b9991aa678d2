"""One thread opens, uses and closes an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.instance import Instance, Work
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.slots import Arena

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, double
from tests.server.callers import Caller, job_of

WITHIN = 30.0


class ThreadEngine(FakeEngine):
    """Remembers on which threads it was used; can fail to close."""

    def __init__(self, closing: Exception | None = None) -> None:
        super().__init__(DOUBLING, self.note)
        self.threads = [threading.get_ident()]
        self.closing = closing

    def note(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.threads.append(threading.get_ident())
        return double(inputs)

    def close(self) -> None:
        self.threads.append(threading.get_ident())
        super().close()
        if self.closing:
            raise self.closing


class Bench:
    """An instance with its queue, and what became of it."""

    def __init__(self, run: Callable[[Engine, Decision[Job]], None] | None = None) -> None:
        self.queue: BatchQueue[Job] = BatchQueue(BatchBounds(4), FakeClock())
        self.engines: list[ThreadEngine] = []
        self.lost: list[BaseException] = []
        self.closing: Exception | None = None
        self._run = run or (lambda _engine, _decision: None)
        self.instance = Instance("test", self.open, self.prepare, self.lost.append)

    def open(self) -> ThreadEngine:
        self.engines.append(ThreadEngine(self.closing))
        return self.engines[0]

    def prepare(self, engine: Engine) -> Work:
        return Work(self.queue, lambda decision: self._run(engine, decision))

    def end(self) -> None:
        self.queue.close()
        assert self.instance.join(WITHIN)


def run_engine(engine: Engine, decision: Decision[Job]) -> None:
    for job in decision.run:
        engine.run({"INPUT0": job.slot.inputs[0]}, {}, job.rows)


def test_an_engine_is_opened_used_and_closed_by_one_thread() -> None:
    bench = Bench(run_engine)
    bench.instance.start().result(WITHIN)
    bench.queue.submit(job_of(Arena(4, 1000), [1.0]))
    bench.end()
    (engine,) = bench.engines
    assert len(engine.threads) == 3
    assert len(set(engine.threads)) == 1
    assert engine.threads[0] != threading.get_ident()
    assert bench.lost == []


def test_an_instance_is_ready_after_its_preparation() -> None:
    go = threading.Event()
    bench = Bench()

    def prepare(engine: Engine) -> Work:
        assert go.wait(WITHIN)
        return bench.prepare(engine)

    instance = Instance("test", bench.open, prepare, bench.lost.append)
    ready = instance.start()
    assert not ready.done()
    go.set()
    ready.result(WITHIN)
    bench.queue.close()
    assert instance.join(WITHIN)


def test_an_engine_that_does_not_open_is_told_to_who_started_it() -> None:
    def refuse() -> Engine:
        raise EngineError("no such file")

    bench = Bench()
    instance = Instance("test", refuse, bench.prepare, bench.lost.append)
    with pytest.raises(EngineError, match="no such file"):
        instance.start().result(WITHIN)
    assert instance.join(WITHIN)
    assert bench.lost == []


def test_an_engine_that_cannot_be_prepared_is_closed() -> None:
    def refuse(_: Engine) -> Work:
        raise EngineError("mixes rows")

    bench = Bench()
    instance = Instance("test", bench.open, refuse, bench.lost.append)
    with pytest.raises(EngineError, match="mixes rows"):
        instance.start().result(WITHIN)
    assert instance.join(WITHIN)
    assert bench.engines[0].closed
    assert bench.lost == []


def test_an_instance_that_dies_at_work_is_lost_and_its_engine_closed() -> None:
    error = EngineError("the device is gone", fatal=True)

    def die(_engine: Engine, _decision: Decision[Job]) -> None:
        raise error

    bench = Bench(die)
    bench.instance.start().result(WITHIN)
    bench.queue.submit(job_of(Arena(4, 1000), [1.0]))
    assert bench.instance.join(WITHIN)
    assert bench.lost == [error]
    assert bench.engines[0].closed


def test_an_engine_that_cannot_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.closing = RuntimeError("stuck")
    bench.instance.start().result(WITHIN)
    bench.end()
    (record,) = caplog.records
    assert record.getMessage() == "an engine could not be closed"


def test_what_waits_when_the_queue_closes_is_still_run() -> None:
    arena, callers = Arena(64, 10**6), [Caller() for _ in range(20)]
    taken: list[Job] = []
    bench = Bench(lambda _engine, decision: taken.extend(decision.run))
    for caller in callers:
        bench.queue.submit(job_of(arena, [1.0], caller))
    bench.instance.start().result(WITHIN)
    bench.end()
    assert len(taken) == 20


def test_joining_gives_up_in_time() -> None:
    bench = Bench()
    bench.instance.start().result(WITHIN)
    assert not bench.instance.join(0.0)
    bench.end()
