"""A plan behind the engine interface, over a stand-in that punishes every missing wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Array, Engine, EngineError, Signature, Tensor
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.lane import KEPT
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range

from tests.device.standin import OUT_OF_MEMORY
from tests.engines.cases import ADD_SUB, CASES, FREE_DIMS, NO_BATCH, Case
from tests.engines.contract import EngineContract
from tests.engines.tensorrt.bench import Bench, NoWait
from tests.fakes.engine import DOUBLING, double

TAKEN = ("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate")
"""Calls that take something, with the GIL held."""
FREE = Range((1,), (64,), (100_000,))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture(params=["graphs", "no graphs"])
def engine(bench: Bench, request: pytest.FixtureRequest) -> Iterator[TensorRTEngine]:
    made = bench.open(DOUBLING, double, graphs=request.param == "graphs")
    yield made
    made.close()


def rows(*values: float) -> dict[str, Array]:
    return {"INPUT0": np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)}


def first(outputs: Mapping[str, Array]) -> list[float]:
    found: list[float] = outputs["OUTPUT0"][:, 0].tolist()
    return found


def unsupported(case: Case) -> bool:
    """TensorRT has no such datatype."""
    names = ("BYTES", "UINT16", "UINT32", "UINT64", "INT16", "FP64")
    return any(case.name.endswith(f" {name}") for name in names)


class TestTensorRT(EngineContract):
    """The contract of all engines."""

    CASES = tuple(case for case in CASES if not unsupported(case))

    @pytest.fixture(autouse=True)
    def _bench(self) -> Iterator[None]:
        self._made = Bench()
        yield
        self._made.close()

    def open(self, case: Case, folder: Path) -> Engine:
        del folder
        ranges = {"INPUT0": FREE} if case is FREE_DIMS else {}
        return self._made.open(
            case.signature, case.compute, ranges=ranges, batched=case is not NO_BATCH
        )


def test_the_contract_goes_through_what_tensorrt_can_serve() -> None:
    tested = {case.name for case in TestTensorRT.CASES}
    assert {"identity FP32", "identity FP16", "identity BOOL", "add_sub", "no_batch"} <= tested


def test_rows_are_padded_to_the_next_bucket_and_nobody_sees_it(engine: TensorRTEngine) -> None:
    for count in range(1, 9):
        values = [float(value) for value in range(count)]
        assert first(engine.run(rows(*values), {}, count)) == [2 * value for value in values]


def test_padding_is_zeros_and_not_what_somebody_else_sent(bench: Bench) -> None:
    seen: list[Array] = []

    def watched(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        seen.append(inputs["INPUT0"].copy())
        return double(inputs)

    engine = bench.open(DOUBLING, watched, buckets=(4,), graphs=False)
    for _ in range(2):
        engine.run(rows(7, 7, 7, 7), {}, 4)
    seen.clear()
    engine.run(rows(1), {}, 1)
    assert seen[0][:, 0].tolist() == [1, 0, 0, 0]


def test_nothing_is_taken_once_it_is_loaded(bench: Bench, engine: TensorRTEngine) -> None:
    before = [bench.standin.calls(name) for name in TAKEN]
    for count in (1, 3, 8, 2, 8):
        engine.run(rows(*range(count)), {}, count)
    assert [bench.standin.calls(name) for name in TAKEN] == before


def test_two_runs_may_be_under_way_and_each_gives_its_own_rows(engine: TensorRTEngine) -> None:
    earlier = engine.begin(rows(1, 2), 2)
    later = engine.begin(rows(3), 1)
    assert first(engine.finish(later, {})) == [6]
    assert first(engine.finish(earlier, {})) == [2, 4]


def test_a_run_that_was_begun_takes_nothing_of_its_inputs_any_more(engine: TensorRTEngine) -> None:
    inputs = rows(1, 2)
    pending = engine.begin(inputs, 2)
    inputs["INPUT0"][:] = 9
    assert first(engine.finish(pending, {})) == [2, 4]


def test_a_missing_wait_would_be_seen(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    pending = engine.begin(rows(1), 1)
    pending.lane.done = NoWait()
    assert first(engine.finish(pending, {})) != [2]


def test_rows_beyond_the_largest_bucket_run_in_parts(engine: TensorRTEngine) -> None:
    values = [float(value) for value in range(21)]
    assert first(engine.run(rows(*values), {}, 21)) == [2 * value for value in values]


def test_every_bucket_of_every_lane_is_launched_as_a_graph(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, buckets=(1, 4))
    before = bench.standin.launches
    for count in (1, 1, 4, 4):
        engine.run(rows(*range(count)), {}, count)
    assert bench.standin.launches == before + 4


def test_free_dimensions_run_without_graphs(bench: Bench) -> None:
    before = bench.standin.launches
    engine = bench.open(
        FREE_DIMS.signature, FREE_DIMS.compute, ranges={"INPUT0": FREE}, buckets=(2,)
    )
    for free in (3, 7, 3):
        inputs = FREE_DIMS.inputs(2, free)
        assert engine.run(inputs, {}, 2)["OUTPUT0"].tolist() == (inputs["INPUT0"] * 2).tolist()
    assert bench.standin.launches == before


def test_a_shape_outside_the_range_fails_alone(bench: Bench) -> None:
    engine = bench.open(
        FREE_DIMS.signature, FREE_DIMS.compute, ranges={"INPUT0": Range((2,), (4,), (8,))}
    )
    with pytest.raises(EngineError, match=r"INPUT0.*not allowed") as refused:
        engine.run(FREE_DIMS.inputs(1, 9), {}, 1)
    assert not refused.value.fatal
    assert engine.run(FREE_DIMS.inputs(1, 8), {}, 1)["OUTPUT0"].shape == (1, 8)


def test_a_run_that_tensorrt_refuses_says_why_and_the_next_one_runs(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    bench.trt.failures.append("the tactic went away")
    with pytest.raises(EngineError, match="run the plan: the tactic went away") as failed:
        engine.run(rows(1), {}, 1)
    assert not failed.value.fatal
    assert first(engine.run(rows(1), {}, 1)) == [2]


def test_a_batch_that_finds_no_memory_runs_once_more_in_halves(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    bench.trt.failures.append("CUDA error: out of memory")
    assert first(engine.run(rows(1, 2, 3), {}, 3)) == [2, 4, 6]
    bench.trt.failures += ["CUDA error: out of memory"] * 2
    with pytest.raises(EngineError, match="out of memory"):
        engine.run(rows(1, 2, 3), {}, 3)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_sticky_error_is_fatal(bench: Bench, graphs: bool) -> None:
    engine = bench.open(DOUBLING, double, graphs=graphs)
    bench.standin.break_context()
    with pytest.raises(EngineError, match="illegal memory access") as failed:
        engine.run(rows(1), {}, 1)
    assert failed.value.fatal


def test_an_engine_needs_the_context_of_its_device(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double)
    bench.device.leave()
    with pytest.raises(EngineError, match="invalid device context"):
        engine.run(rows(1), {}, 1)
    bench.device.enter()


def test_everything_is_given_back(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double)
    assert bench.standin.held() > 0
    assert engine.memory() >= bench.standin.held()
    engine.close()
    assert bench.standin.leaks() == {}
    assert engine.memory() == 0


def test_a_plan_that_does_not_fit_is_refused_before_it_is_loaded(bench: Bench) -> None:
    bench.standin.limit(1 << 20)
    with pytest.raises(PlanRefused, match=r"needs about \d+ MiB .* and 1 MiB are free"):
        bench.open(DOUBLING, double)
    assert bench.standin.held() == 0


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_what_was_taken_before_it_failed_is_given_back(bench: Bench, nth: int) -> None:
    # pycuda tries once more, after Python gave back what nobody has.
    bench.standin.fail("cuMemAlloc", OUT_OF_MEMORY, nth, times=2)
    with pytest.raises(EngineError, match="out of memory") as failed:
        bench.open(DOUBLING, double)
    assert not failed.value.fatal
    assert bench.standin.held() == 0


def test_a_plan_of_another_version_is_refused_with_the_reason(bench: Bench) -> None:
    with pytest.raises(PlanRefused, match="not one of this version"):
        load(bench.library, bench.device, b"other", DOUBLING, BuildOptions())


def test_a_plan_of_another_model_is_refused(bench: Bench) -> None:
    bench.open(DOUBLING, double)
    with pytest.raises(PlanRefused, match="the plan has the tensors"):
        load(bench.library, bench.device, b"a plan", ADD_SUB.signature, BuildOptions())


def several(count: int) -> Signature:
    """Return a signature of so many inputs and outputs."""
    tensors = [
        tuple(Tensor(f"{letter}{i}", np.dtype(np.float32), (None, 4)) for i in range(count))
        for letter in "IO"
    ]
    return Signature(*tensors)


def renamed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {f"O{name[1:]}": array * (2 + int(name[1:])) for name, array in inputs.items()}


COPIES = ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")


@pytest.mark.parametrize(("graphs", "copies"), [(True, [0, 0]), (False, [1, 1])])
def test_however_many_tensors_there_are_they_are_copied_at_once(
    bench: Bench, graphs: bool, copies: list[int]
) -> None:
    engine = bench.open(several(10), renamed, buckets=(1, 4), graphs=graphs)
    before = [bench.standin.calls(name) for name in COPIES]
    inputs = {f"I{i}": np.full((3, 4), i + 1.0, np.float32) for i in range(10)}
    found = engine.run(inputs, {}, 3)
    assert [found[f"O{i}"][2, 3] for i in range(10)] == [(2 + i) * (i + 1) for i in range(10)]
    after = [bench.standin.calls(name) for name in COPIES]
    assert [one - other for one, other in zip(after, before, strict=True)] == copies


def test_sizes_that_come_again_are_not_told_to_tensorrt_again(bench: Bench) -> None:
    engine = bench.open(
        FREE_DIMS.signature, FREE_DIMS.compute, ranges={"INPUT0": FREE}, buckets=(2,)
    )

    def told() -> int:
        return sum(context.told for context in bench.trt.engines[-1].contexts)

    for free in (3, 3):
        engine.run(FREE_DIMS.inputs(2, free), {}, 2)
    before = told()
    for _ in range(4):
        inputs = FREE_DIMS.inputs(2, 3)
        assert engine.run(inputs, {}, 2)["OUTPUT0"].tolist() == (inputs["INPUT0"] * 2).tolist()
    assert told() == before
    # Another size in between is told, and so is the first one after it.
    for free in (7, 7, 3, 3):
        inputs = FREE_DIMS.inputs(2, free)
        assert engine.run(inputs, {}, 2)["OUTPUT0"].tolist() == (inputs["INPUT0"] * 2).tolist()
    assert told() == before + 4


def test_ever_new_sizes_take_no_more_memory_than_some(bench: Bench) -> None:
    engine = bench.open(
        FREE_DIMS.signature, FREE_DIMS.compute, ranges={"INPUT0": FREE}, buckets=(1,)
    )
    held = bench.standin.held()
    for free in range(1, 2 * KEPT):
        inputs = FREE_DIMS.inputs(1, free)
        assert engine.run(inputs, {}, 1)["OUTPUT0"].shape == inputs["INPUT0"].shape
    assert bench.standin.held() == held
