"""Outputs whose shapes depend on the data, over a double that asks for their memory as it runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from inferd_engines.engine import Array, EngineError, Signature, Tensor
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused, TensorRTError
from inferd_engines.tensorrt.outputs import DependentOutput
from inferd_engines.tensorrt.profiles import Range
from inferd_engines.tensorrt.recording import Recording

from tests.engines.tensorrt.bench import PLAN, Bench, NoWait
from tests.fakes.engine import DOUBLING, double

TAKEN = ("cuMemAlloc", "cuMemHostAlloc")
FLOAT, INTEGER = np.dtype(np.float32), np.dtype(np.int64)
WHERE = Signature((Tensor("X", FLOAT, (8,)),), (Tensor("AT", INTEGER, (None,)),))
LARGE = Signature((Tensor("X", FLOAT, (None,)),), WHERE.outputs)
LONG = {"X": Range((1,), (8,), (10_000,))}
PACKED = Signature(
    (Tensor("X", FLOAT, (None, 4)),),
    (Tensor("SUM", FLOAT, (None,)), Tensor("PACKED", FLOAT, (None, None))),
)


def where(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the places of the positive elements."""
    return {"AT": np.flatnonzero(inputs["X"] > 0)}


def pack(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return each row's sum, and its largest elements: as many as the fullest row has positives."""
    width = int((inputs["X"] > 0).sum(axis=1).max(initial=0))
    return {"SUM": inputs["X"].sum(axis=1), "PACKED": -np.sort(-inputs["X"])[:, :width]}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["asynchronous", "older"])
def finder(bench: Bench, request: pytest.FixtureRequest) -> Iterator[TensorRTEngine]:
    bench.trt.asynchronous = request.param
    made = bench.open(WHERE, where, batched=False, dependent=["AT"])
    yield made
    made.close()


def positives(*places: int, size: int = 8) -> dict[str, Array]:
    found = np.zeros(size, np.float32)
    found[list(places)] = 1
    return {"X": found}


def packing(bench: Bench, *buckets: int) -> TensorRTEngine:
    return bench.open(PACKED, pack, buckets=buckets, dependent=["PACKED"])


def filled(*counts: int) -> dict[str, Array]:
    return {"X": np.array([[1.0] * count + [0.0] * (4 - count) for count in counts], np.float32)}


def test_every_run_has_the_shape_that_its_data_give(finder: TensorRTEngine) -> None:
    for places in ([3], [0, 1, 2, 7], [], [5, 6], list(range(8))):
        gc.collect()
        assert finder.run(positives(*places), {}, 1)["AT"].tolist() == places


def test_a_given_buffer_is_written(finder: TensorRTEngine) -> None:
    buffer = np.zeros(2, np.int64)
    assert finder.run(positives(2, 5), {"AT": buffer}, 1)["AT"] is buffer
    assert buffer.tolist() == [2, 5]
    with pytest.raises(EngineError, match=r"'AT' is int64 \[1\], and the buffer"):
        finder.run(positives(2), {"AT": buffer}, 1)


def test_memory_is_taken_where_it_does_not_fit_and_kept(
    bench: Bench, finder: TensorRTEngine
) -> None:
    before = [bench.standin.calls(name) for name in TAKEN]
    lanes = 2
    for _ in range(lanes):
        finder.run(positives(*range(8)), {}, 1)
    taken = [bench.standin.calls(name) for name in TAKEN]
    assert taken == [count + lanes for count in before]
    for count in (1, 8, 3, 8, 0, 8):
        finder.run(positives(*range(count)), {}, 1)
    assert [bench.standin.calls(name) for name in TAKEN] == taken


def test_outputs_that_grow_bit_by_bit_do_not_take_memory_each_time(bench: Bench) -> None:
    output = DependentOutput(bench.cuda, WHERE.outputs[0], Recording())
    before = bench.standin.calls("cuMemAlloc")
    for nbytes in range(1, 10_001):
        assert output.reserve(nbytes, 256)
    assert bench.standin.calls("cuMemAlloc") < before + 30
    assert 10_000 <= bench.standin.held() <= 15_000
    output.close()
    assert bench.standin.held() == 0


def test_two_runs_under_way_have_their_own_shapes(finder: TensorRTEngine) -> None:
    for _ in range(2):
        earlier = finder.begin(positives(1, 2, 3), 1)
        later = finder.begin(positives(7), 1)
        assert finder.finish(later, {})["AT"].tolist() == [7]
        assert finder.finish(earlier, {})["AT"].tolist() == [1, 2, 3]


def test_a_missing_wait_would_be_seen(finder: TensorRTEngine) -> None:
    pending = finder.begin(positives(1, 2), 1)
    pending.lane.done = NoWait()
    found = finder.finish(pending, {})["AT"].tolist()
    assert len(found) == 2
    assert found != [1, 2]


def test_nothing_is_captured(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    before = bench.standin.launches
    engine = bench.open(WHERE, where, batched=False, dependent=["AT"])
    engine.run(positives(1), {}, 1)
    assert bench.standin.launches == before
    assert caplog.records == []


def test_a_shape_that_is_not_told_is_not_that_of_the_run_before(bench: Bench) -> None:
    output = DependentOutput(bench.cuda, WHERE.outputs[0], Recording())
    stream = bench.cuda.Stream(1)
    output.begin()
    output.reserve(8, 256)
    output.told((1,))
    output.copy_out(stream)
    output.begin()
    with pytest.raises(TensorRTError, match="did not tell the shape of output 'AT'"):
        output.copy_out(stream)
    stream.synchronize()
    output.close()


def test_such_a_run_could_not_be_captured(bench: Bench, finder: TensorRTEngine) -> None:
    lane = finder.begin(positives(1), 1).lane
    bench.device.libcuda.begin_capture(lane.handle)
    # The first context is the one that told the shapes at load.
    assert not bench.trt.engines[0].contexts[1].execute_async_v3(lane.handle)
    with pytest.raises(TensorRTError, match="CAPTURE_INVALIDATED"):
        bench.device.libcuda.end_capture(lane.handle)


def test_rows_are_cut_from_the_bucket_and_other_outputs_are_as_ever(bench: Bench) -> None:
    engine = packing(bench, 1, 4)
    found = engine.run(filled(1, 3, 2), {}, 3)
    assert found["SUM"].tolist() == [1, 3, 2]
    assert found["PACKED"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]
    assert engine.run(filled(0), {}, 1)["PACKED"].shape == (1, 0)


def test_padding_that_cannot_be_told_from_rows_is_refused(bench: Bench) -> None:
    def ones(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {**pack(inputs), "PACKED": np.argwhere(inputs["X"] > 0).astype(np.float32)}

    engine = bench.open(PACKED, ones, buckets=(4,), dependent=["PACKED"])
    with pytest.raises(EngineError, match=r"'PACKED' has shape \[3, 2\] for a batch of 4 rows"):
        engine.run(filled(1, 1, 1), {}, 3)
    # Without padding all of it is the caller's, who counts the rows.
    assert engine.run(filled(1, 1, 1, 2), {}, 4)["PACKED"].shape == (5, 2)
    with pytest.raises(EngineError, match=r"\[5, 2\] for a batch of 4 rows"):
        engine.run(filled(1, 1, 1, 2, 1, 1, 1, 0), {}, 8)


def test_parts_of_a_batch_are_joined_where_they_can_be(bench: Bench) -> None:
    engine = packing(bench, 2)
    assert engine.run(filled(2, 1, 2), {}, 3)["PACKED"].tolist() == [[1, 1], [1, 0], [1, 1]]
    with pytest.raises(EngineError, match=r"'PACKED' has shapes \[2, 2\] and \[1, 3\] in the par"):
        engine.run(filled(2, 1, 3), {}, 3)


def test_a_run_that_finds_no_memory_fails_alone(bench: Bench) -> None:
    engine = bench.open(LARGE, where, ranges=LONG, batched=False, dependent=["AT"])
    bench.standin.limit(bench.standin.held() + 4096)
    with pytest.raises(EngineError, match=r"no memory for output 'AT': .*out of memory") as failed:
        engine.run(positives(*range(1000), size=1000), {}, 1)
    assert not failed.value.fatal
    for _ in range(2):
        assert engine.run(positives(6), {}, 1)["AT"].tolist() == [6]


def test_a_batch_that_finds_no_memory_runs_in_halves(bench: Bench) -> None:
    engine = packing(bench, 2, 4)
    bench.standin.limit(bench.standin.held() + 2 * (2 * 4 * 4 + 256))
    assert engine.run(filled(4, 4, 4, 4), {}, 4)["PACKED"].tolist() == [[1] * 4] * 4


def test_nothing_has_an_address_too(bench: Bench) -> None:
    output = DependentOutput(bench.cuda, WHERE.outputs[0], Recording())
    assert output.reserve(0, 256)
    output.close()
    assert bench.standin.held() == 0


def test_an_alignment_that_allocations_lack_is_refused(bench: Bench) -> None:
    recording = Recording()
    output = DependentOutput(bench.cuda, WHERE.outputs[0], recording)
    assert output.reserve(8, 4096) == 0
    assert "aligned to 4096 bytes" in recording.explain("it failed")


def test_its_memory_is_counted_and_given_back(bench: Bench) -> None:
    engine = bench.open(LARGE, where, ranges=LONG, batched=False, dependent=["AT"])
    before = engine.memory()
    engine.run(positives(*range(5000), size=5000), {}, 1)
    assert engine.memory() >= before + 5000 * 8
    engine.close()
    assert bench.standin.held() == 0


def test_inputs_that_are_shapes_of_others_are_refused(bench: Bench) -> None:
    bench.open(DOUBLING, double).close()
    bench.models[PLAN].shaping = frozenset({"INPUT0"})
    with pytest.raises(PlanRefused, match="values of input 'INPUT0' are shapes"):
        bench.load(DOUBLING)


def test_inputs_of_other_rows_than_the_batch_are_refused(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double)
    with pytest.raises(EngineError, match=r"'INPUT0' has 5 rows in a batch of 1; .*batched: false"):
        engine.run({"INPUT0": np.zeros((5, 4), np.float32)}, {}, 1)
