"""Inputs in registered memory are read where they lie, and only while that is safe."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterator

import numpy as np
import pytest
from inferd_engines.choice import Instead
from inferd_engines.engine import Array, EngineError, PlanState, Registering
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.opener import OnDevice
from inferd_engines.tensorrt.pinned import whole_pages

from tests.device.standin import UNKNOWN
from tests.engines.cases import NO_BATCH
from tests.engines.tensorrt.bench import Bench
from tests.fakes.engine import DOUBLING, FakeEngine, double

PAGES = 3
ROW_BYTES = 16


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()
    assert made.standin.held("registered") == 0


@pytest.fixture(params=["graphs", "no graphs"])
def engine(bench: Bench, request: pytest.FixtureRequest) -> Iterator[TensorRTEngine]:
    made = bench.open(DOUBLING, double, buckets=(1, 2, 4), graphs=request.param == "graphs")
    yield made
    made.close()


@pytest.fixture
def memory() -> Array:
    """Return pages as a segment of shared memory has them."""
    return np.frombuffer(mmap.mmap(-1, PAGES * mmap.PAGESIZE), np.uint8)


@pytest.fixture
def sources(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where on the host the copies to the device come from: addresses, filled as it goes."""
    found: list[int] = []
    copy = bench.cuda.memcpy_htod_async

    def watched(dest: object, source: Array, stream: object) -> None:
        found.append(source.ctypes.data)
        copy(dest, source, stream)

    monkeypatch.setattr(bench.cuda, "memcpy_htod_async", watched)
    return found


def rows_in(memory: Array, count: int, at: int = 0) -> dict[str, Array]:
    """Return rows that lie in memory, from a byte on."""
    own = memory[at : at + count * ROW_BYTES].view(np.float32).reshape(count, 4)
    own[:] = np.arange(1, count + 1)[:, None]
    return {"INPUT0": own}


def first(outputs: object) -> list[float]:
    found: list[float] = outputs["OUTPUT0"][:, 0].tolist()  # type: ignore[index]
    return found


def direct(sources: list[int], inputs: dict[str, Array]) -> bool:
    """Tell whether the last copy came from the caller's memory."""
    return sources[-1:] == [inputs["INPUT0"].ctypes.data]


def test_full_buckets_are_copied_from_where_they_are(
    engine: TensorRTEngine, memory: Array, sources: list[int]
) -> None:
    assert engine.register(memory)
    for count in (1, 2, 4, 4):
        inputs = rows_in(memory, count, 64)
        assert first(engine.run(inputs, {}, count)) == [2.0 * (i + 1) for i in range(count)]
        assert direct(sources, inputs)


def test_graphs_are_used_as_ever(bench: Bench, memory: Array) -> None:
    engine = bench.open(DOUBLING, double, buckets=(2,))
    engine.register(memory)
    before = bench.standin.launches
    for _ in range(3):
        assert first(engine.run(rows_in(memory, 2), {}, 2)) == [2, 4]
    assert bench.standin.launches == before + 3
    engine.close()


def test_a_batch_beyond_the_largest_bucket_is_copied_part_by_part(
    engine: TensorRTEngine, memory: Array, sources: list[int]
) -> None:
    engine.register(memory)
    inputs = rows_in(memory, 8)
    assert first(engine.run(inputs, {}, 8)) == [2.0 * (i + 1) for i in range(8)]
    start = inputs["INPUT0"].ctypes.data
    assert sources[-2:] == [start, start + 4 * ROW_BYTES]


def test_what_has_to_be_padded_or_put_together_is_staged(
    engine: TensorRTEngine, memory: Array, sources: list[int]
) -> None:
    engine.register(memory)
    padded = rows_in(memory, 3)
    assert first(engine.run(padded, {}, 3)) == [2, 4, 6]
    assert not direct(sources, padded)
    apart = {"INPUT0": rows_in(memory, 8)["INPUT0"][::2]}
    assert first(engine.run(apart, {}, 4)) == [2, 6, 10, 14]
    assert not direct(sources, apart)


def test_memory_beside_the_registered_pages_is_staged(
    engine: TensorRTEngine, memory: Array, sources: list[int]
) -> None:
    page = mmap.PAGESIZE
    # All but the first and the last bytes: one whole page.
    assert engine.register(memory[4 : 2 * page + 4])
    for at, expected in ((0, False), (page, True), (2 * page - 2 * ROW_BYTES, True)):
        inputs = rows_in(memory, 2, at)
        assert first(engine.run(inputs, {}, 2)) == [2, 4]
        assert direct(sources, inputs) is expected
    across = rows_in(memory, 2, 2 * page - ROW_BYTES)
    assert first(engine.run(across, {}, 2)) == [2, 4]
    assert not direct(sources, across)


def test_a_plan_without_a_batch_reads_in_place(
    bench: Bench, memory: Array, sources: list[int]
) -> None:
    engine = bench.open(NO_BATCH.signature, NO_BATCH.compute, batched=False)
    engine.register(memory)
    own = memory[:48].view(np.float32).reshape(3, 4)
    own[:] = NO_BATCH.inputs(1)["INPUT0"]
    expected = NO_BATCH.compute({"INPUT0": own})["OUTPUT0"]
    np.testing.assert_array_equal(engine.run({"INPUT0": own}, {}, 1)["OUTPUT0"], expected)
    assert direct(sources, {"INPUT0": own})
    engine.close()


def test_two_runs_under_way_read_their_own_rows(engine: TensorRTEngine, memory: Array) -> None:
    engine.register(memory)
    earlier = engine.begin(rows_in(memory, 2), 2)
    later = engine.begin(rows_in(memory, 1, 4096), 1)
    assert first(engine.finish(later, {})) == [2]
    assert first(engine.finish(earlier, {})) == [2, 4]


def test_memory_that_changes_before_the_end_of_a_run_would_be_seen(
    engine: TensorRTEngine, memory: Array
) -> None:
    engine.register(memory)
    inputs = rows_in(memory, 2)
    pending = engine.begin(inputs, 2)
    inputs["INPUT0"][:] = 9
    assert first(engine.finish(pending, {})) == [18, 18]
    # After the end it is the caller's again.
    inputs = rows_in(memory, 2)
    assert first(engine.run(inputs, {}, 2)) == [2, 4]
    inputs["INPUT0"][:] = 9
    assert first(engine.run(rows_in(memory, 2), {}, 2)) == [2, 4]


def test_a_run_that_fails_leaves_the_memory_to_its_caller(bench: Bench, memory: Array) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    engine.register(memory)
    bench.trt.failures.append("the tactic went away")
    inputs = rows_in(memory, 2)
    with pytest.raises(EngineError, match="the tactic went away"):
        engine.run(inputs, {}, 2)
    inputs["INPUT0"][:] = 9
    bench.device.context.synchronize()
    engine.close()


def test_a_run_that_nobody_finished_is_waited_for_before_memory_is_let_go_of(
    bench: Bench, memory: Array
) -> None:
    engine = bench.open(DOUBLING, double)
    engine.register(memory)
    stream = engine.begin(rows_in(memory, 2), 2).lane.stream
    engine.close()
    assert stream.is_done()
    assert bench.standin.violations == 0
    assert bench.standin.held("registered") == 0


def test_memory_is_locked_once_for_all_engines_and_until_the_last_one_closes(
    bench: Bench, memory: Array
) -> None:
    one, other = (bench.open(DOUBLING, double) for _ in range(2))
    assert one.register(memory)
    assert other.register(memory[: mmap.PAGESIZE])
    assert bench.standin.held("registered") == 1
    one.close()
    assert first(other.run(rows_in(memory, 2), {}, 2)) == [2, 4]
    assert bench.standin.held("registered") == 1
    other.close()
    assert bench.standin.held("registered") == 0
    assert not other.register(memory)


def test_memory_that_cannot_be_locked_is_staged_and_the_log_says_why(
    bench: Bench,
    engine: TensorRTEngine,
    memory: Array,
    sources: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    half = bench.device.host_memory.acquire(memory[: mmap.PAGESIZE])
    for unfit in (memory, memory[1:100], memory.reshape(2, -1)[:, 1:]):
        caplog.clear()
        assert not engine.register(unfit)
        (record,) = caplog.records
        assert record.message == "memory was not registered"
        assert record.why
    inputs = rows_in(memory, 2)
    assert first(engine.run(inputs, {}, 2)) == [2, 4]
    assert not direct(sources, inputs)
    bench.device.host_memory.release(half)


def test_memory_that_the_driver_refuses_is_staged_and_the_limit_is_named(
    bench: Bench,
    engine: TensorRTEngine,
    memory: Array,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {"most": resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["most"], limits["most"]))
    for most, words in ((resource.RLIM_INFINITY, "999)"), (8192, "lock 8 KiB (ulimit -l), and 12")):
        limits["most"] = most
        caplog.clear()
        bench.standin.fail("cuMemHostRegister", UNKNOWN)
        assert not engine.register(memory)
        assert words in vars(caplog.records[0])["why"]
    inputs = rows_in(memory, 2)
    assert first(engine.run(inputs, {}, 2)) == [2, 4]
    # It may be had later.
    assert engine.register(memory)


def test_memory_of_a_process_that_ended_is_let_go_of_and_its_pages_can_be_registered_anew(
    bench: Bench, engine: TensorRTEngine, memory: Array
) -> None:
    assert engine.register(memory)
    engine.close()
    other = bench.open(DOUBLING, double)
    assert other.register(memory)
    assert bench.standin.held("registered") == 1


def test_only_whole_pages_are_taken(memory: Array) -> None:
    page = mmap.PAGESIZE
    for start, end, expected in (
        (0, 3 * page, 3 * page),
        (1, 3 * page, 2 * page),
        (1, 3 * page - 1, page),
        (1, page + 1, 0),
        (7, 9, 0),
    ):
        pages = whole_pages(memory[start:end])
        assert pages.nbytes == expected
        assert not expected or pages.ctypes.data % page == 0


def test_engines_say_through_others_whether_they_read_in_place(
    bench: Bench, engine: TensorRTEngine, memory: Array
) -> None:
    assert isinstance(engine, Registering)
    assert not isinstance(FakeEngine(), Registering)
    assert Instead(OnDevice(engine, bench.device, ()), "no reason", PlanState.FALLBACK).register(
        memory
    )
    assert not Instead(FakeEngine(), "no reason", PlanState.FALLBACK).register(memory)
