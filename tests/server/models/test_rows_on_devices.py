"""The trial of rows on TensorRT's engine, over doubles: buckets, padding, kernels that round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError
from inferd_engines.onnx_values import ModelFacts
from inferd_server.models.batchable import Batching, find_batching
from inferd_server.models.row_independence import Budget, RowTrial
from inferd_server.models.row_verdict import RowVerdict

from tests.engines.tensorrt.bench import Bench
from tests.fakes.engine import DOUBLING, FakeEngine, double

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
BUCKETS = [(1, 2, 4, 8), (1, 4, 16), (8,)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def find(engine: Engine, asked: int | None = None) -> Batching:
    def trial(most: int) -> RowVerdict:
        budget = Budget(lambda: 0.0, lambda: 0, lambda: 0)
        return RowTrial(engine, ModelFacts(), most, budget).verdict()

    return find_batching(engine.signature, asked, 32, ModelFacts(), trial)


def centred(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Each row less a hundredth of the mean over the batch, rows that only fill it up included."""
    given = inputs["INPUT0"]
    return {"OUTPUT0": given - np.float32(0.01) * given.mean(axis=0)}


def wavering(compute: Answer, every: int) -> Answer:
    """Let the last bit of some runs be another one, as kernels do whose sums have no order."""
    runs = count(1)

    def waver(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        found = compute(inputs)["OUTPUT0"]
        off = next(runs) % every == 0
        return {"OUTPUT0": np.nextafter(found, np.float32(np.inf)) if off else found}

    return waver


def rounding_by_size(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """What kernels of 10 bits give, of which there is another one for each size of a batch."""
    given = inputs["INPUT0"]
    largest = np.abs(given).max(axis=1, keepdims=True)
    return {"OUTPUT0": given * 2 + np.float32(0.004 / len(given)) * largest}


@pytest.mark.parametrize("buckets", BUCKETS)
def test_rows_of_a_plan_that_are_independent_share_runs(
    bench: Bench, buckets: tuple[int, ...]
) -> None:
    engine = bench.open(DOUBLING, double, buckets=buckets)
    found = find(engine)
    assert found.max_batch_size == 32
    assert found.reason.startswith("rows kept every bit of their answers")
    engine.close()


@pytest.mark.parametrize("buckets", BUCKETS)
def test_a_plan_that_mixes_rows_is_found_though_padding_is_mixed_in(
    bench: Bench, buckets: tuple[int, ...]
) -> None:
    engine = bench.open(DOUBLING, centred, buckets=buckets)
    with pytest.raises(EngineError, match="max_batch_size is 8, and rows depend on the other rows"):
        find(engine, 8)
    engine.close()


@pytest.mark.parametrize("every", [2, 3, 7])
def test_an_engine_whose_last_bits_waver_needs_the_operators_word(bench: Bench, every: int) -> None:
    engine = bench.open(DOUBLING, wavering(double, every))
    found = find(engine)
    assert found.max_batch_size == 0
    assert found.reason.startswith(f"{engine.name} answers equal batches with other last bits")
    assert "output 'OUTPUT0'" in found.reason
    assert "set max_batch_size: 32 in model.yaml" in found.reason
    asked = find(engine, 8)
    assert (asked.max_batch_size, asked.proven) == (8, False)
    engine.close()


def test_mixing_beyond_rounding_is_found_on_such_an_engine_too(bench: Bench) -> None:
    def mixed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] - inputs["INPUT0"].mean(axis=0)}

    engine = bench.open(DOUBLING, wavering(mixed, 2))
    with pytest.raises(EngineError, match="rows depend on the other rows of their batch"):
        find(engine, 8)
    engine.close()


def test_kernels_that_round_otherwise_for_each_size_are_no_mixing_on_a_device() -> None:
    on_device = FakeEngine(DOUBLING, rounding_by_size, name="tensorrt/GPU")
    assert find(on_device).max_batch_size == 32
    on_processor = FakeEngine(DOUBLING, rounding_by_size, name="onnxruntime/CPU")
    assert "its size" in find(on_processor).reason
