"""Models without requests have no threads, and every request finds one all the same."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from inferd.tensors import Array
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.instance import Instance, Work
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.models.version import Handle

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, double
from tests.server.callers import Caller, job_of, rows_of
from tests.server.models.bench import WITHIN, Bench, Engines
from tests.server.processes.link.bench import Bench as LinkBench
from tests.server.processes.link.bench import Target, bench

# Three hundred models take a while to load on a busy machine.
pytestmark = pytest.mark.timeout(300)
MANY = 300


class OnTheProcessor(FakeEngine):
    """An engine that any thread may use, and that remembers which ones did."""

    def __init__(self) -> None:
        super().__init__(DOUBLING, self.note, name="fake/CPU")
        self.threads: list[int] = []

    def note(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.threads.append(threading.get_ident())
        return double(inputs)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads end as soon as there is nothing to do."""
    monkeypatch.setattr("inferd_server.batching.instance.IDLE_S", 0.0)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Bench]:
    engines = Engines(OnTheProcessor)
    made = Bench(tmp_path, engines)
    made.engines = engines
    for number in range(MANY):
        made.add(f"m{number}", 1)
    made.repository.load_all()
    yield made
    made.close()


def instance_of(queue: BatchQueue, engine: FakeEngine, parks: bool) -> Instance:
    """Return an instance that has started."""
    runner: Runner = Runner(engine, True, lambda _: None, time.monotonic)
    work = Work(queue, runner, parks=parks)
    instance = Instance(engine.name, lambda: engine, lambda _: work, raised)
    instance.start().result(WITHIN)
    return instance


def instances_of(
    queue: BatchQueue, engines: Sequence[FakeEngine], parks: int | None
) -> list[Instance]:
    """Return an instance for each engine; the first ones park, all of them by default."""
    most = len(engines) if parks is None else parks
    return [instance_of(queue, engine, place < most) for place, engine in enumerate(engines)]


class Local:
    """One model of one process."""

    def __init__(self, *engines: FakeEngine, rows: int = 4, parks: int | None = None) -> None:
        self.queue: BatchQueue = BatchQueue(BatchBounds(rows), time.monotonic)
        self.arena = Arena(64, 10**6)
        self.together = nullcontext()
        self.instances = instances_of(self.queue, engines, parks)
        self.instance = self.instances[0]

    def send(self, value: float) -> Caller:
        caller = Caller()
        assert self.queue.submit(job_of(self.arena, [value], caller))
        return caller

    def close(self) -> None:
        self.queue.close()
        assert all(instance.join(WITHIN) for instance in self.instances)


class Linked:
    """One model of a worker process."""

    def __init__(
        self, made: LinkBench, *engines: FakeEngine, rows: int = 4, parks: int | None = None
    ) -> None:
        dtypes = [tensor.dtype for tensor in engines[0].signature.inputs]
        self.queue = made.inbox.open(dtypes, BatchBounds(rows))
        self.bench = made
        # What is sent meanwhile, the worker finds at once.
        self.together = made.inbox.lock
        self.instances = instances_of(self.queue, engines, parks)
        self.instance = self.instances[0]

    def send(self, value: float) -> Caller:
        return self.bench.fronts[0].send(Target(self.queue.number), value)

    def close(self) -> None:
        self.queue.close()
        assert all(instance.join(WITHIN) for instance in self.instances)


def raised(error: BaseException) -> None:
    raise AssertionError("the instance ended") from error


Make = Callable[..., Local | Linked]


@pytest.fixture(params=["one process", "worker process"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "one process":
        yield Local
        return
    with bench() as made:
        yield partial(Linked, made)


def test_a_model_without_requests_has_no_thread_and_answers_the_next_one(make: Make) -> None:
    engine = OnTheProcessor()
    model = make(engine)
    for value in (1.0, 2.0, 3.0):
        # The thread ends, its engine stays open.
        assert model.instance.join(WITHIN)
        assert not engine.closed
        assert model.send(value).wait().output == rows_of(2 * value)
    model.close()
    assert engine.closed
    assert len(engine.threads) == 3


def test_requests_at_the_moment_a_thread_ends_are_answered(make: Make) -> None:
    engine = OnTheProcessor()
    model = make(engine)
    for value in range(200):
        assert model.send(float(value)).wait().output == rows_of(2.0 * value)
    model.close()


def test_a_model_is_answered_while_the_only_one_with_a_thread_is_busy() -> None:
    with bench() as made:
        busy, idle = FakeEngine(), OnTheProcessor()
        target = made.serve(busy)
        model = Linked(made, idle)
        assert model.instance.join(WITHIN)
        busy.hold()
        held = made.fronts[0].send(target, 5.0)
        assert busy.running.wait(WITHIN)
        assert model.send(1.0).wait().output == rows_of(2.0)
        busy.release()
        assert held.wait().output == rows_of(10.0)
        model.close()


def test_requests_that_wait_are_counted_though_their_engine_is_busy(make: Make) -> None:
    engine = OnTheProcessor()
    model = make(engine)
    assert model.instance.join(WITHIN)
    engine.hold()
    first = model.send(1.0)
    assert engine.running.wait(WITHIN)
    assert model.queue.waiting_requests == 0
    others = [model.send(2.0), model.send(3.0)]
    assert model.queue.waiting_requests == 2
    engine.release()
    for caller in (first, *others):
        assert caller.wait().answers == 1
    model.close()


@pytest.mark.parametrize("parks", [0, 3, 4])
def test_as_many_instances_run_as_requests_come_at_once(make: Make, parks: int) -> None:
    engines = [OnTheProcessor() for _ in range(4)]
    model = make(*engines, rows=1, parks=parks)
    for _ in range(20):
        assert all(instance.join(WITHIN) for instance in model.instances[:parks])
        for engine in engines:
            engine.hold()
        with model.together:
            callers = [model.send(float(value)) for value in range(4)]
        # All of them begin before any is let go.
        assert all(engine.running.wait(WITHIN) for engine in engines)
        for engine in engines:
            engine.release()
        assert [caller.wait().output for caller in callers] == [rows_of(2.0 * n) for n in range(4)]
    model.close()


def test_an_engine_that_belongs_to_its_thread_keeps_it() -> None:
    engine = OnTheProcessor()
    queue: BatchQueue = BatchQueue(BatchBounds(4), FakeClock())
    runner: Runner[Job] = Runner(engine, True, lambda _: None, FakeClock())
    instance = Instance("own", lambda: engine, lambda _: Work(queue, runner), raised)
    instance.start().result(WITHIN)
    callers = [Caller(), Caller()]
    for caller in callers:
        assert queue.submit(job_of(Arena(4, 1000), [1.0], caller))
        caller.wait()
    assert len(set(engine.threads)) == 1
    assert not instance.join(0)
    queue.close()
    assert instance.join(WITHIN)


def model_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if re.match(r"m\d", thread.name)]


def handles(many: Bench) -> list[Handle]:
    return [entry.handle for entry in many.repository.entries() if entry.handle]


def test_hundreds_of_idle_models_have_no_threads_and_each_of_them_answers(many: Bench) -> None:
    for _ in range(2):
        assert all(
            instance.join(WITHIN) for handle in handles(many) for instance in handle.instances
        )
        assert model_threads() == []
        for number in range(MANY):
            caller = many.submit(float(number), name=f"m{number}")
            assert caller.wait().output == rows_of(2.0 * number)


def test_the_end_of_hundreds_of_models_is_told_in_two_steps(many: Bench) -> None:
    told = len(many.changes)
    many.close()
    assert len(many.changes) == told + 2
    assert model_threads() == []
    assert all(engine.closed for engine in many.engines.opened)
