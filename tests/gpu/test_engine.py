"""Plans on hardware: the contract, right answers, graphs, and two runs under way."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.judge import accept
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Profile, Range
from inferd_engines.tensorrt.trial import drawn
from inferd_server.settings.model import shipped_models
from onnx import TensorProto, helper

from benchmarks import resnet50
from tests import models
from tests.engines.cases import CASES, FREE_DIMS, NO_BATCH, Case
from tests.engines.contract import EngineContract
from tests.gpu.hardware import opened

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
DIGITS = shipped_models() / "digits/1/model.onnx"
SUPPORTED = ("FP32", "FP16", "INT32", "INT64", "BOOL", "BF16")


def supported(case: Case) -> bool:
    kind = case.name.removeprefix("identity ")
    return kind == case.name or kind in SUPPORTED


class TestTensorRT(EngineContract):
    """The contract of all engines."""

    CASES = tuple(case for case in CASES if supported(case))

    @pytest.fixture(autouse=True)
    def _gpu(self, gpu: Gpu) -> Iterator[None]:
        self._found = gpu
        self._engines: list[TensorRTEngine] = []
        yield
        for engine in self._engines:
            engine.close()

    def open(self, case: Case, folder: Path) -> Engine:
        path = folder / "model.onnx"
        models.save(case.model, path)
        ranges = {"INPUT0": Range((1,), (64,), (100_000,))} if case is FREE_DIMS else {}
        options = BuildOptions(buckets=(1, 8, 64), ranges=ranges, batched=case is not NO_BATCH)
        self._engines.append(opened(self._found, path, options))
        return self._engines[-1]


def batches(*rows: int) -> list[Profile]:
    """Return what `drawn` makes batches of so many rows for."""
    return [Profile(count) for count in rows]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["digits", "resnet50"])
def test_answers_are_those_of_onnx_runtime_on_fresh_random_inputs(
    gpu: Gpu, tmp_path: Path, name: str, precision: str
) -> None:
    model = DIGITS if name == "digits" else resnet50.write(tmp_path)
    buckets = (1, 4, 8)
    engine = opened(gpu, model, BuildOptions(precision, buckets=buckets))
    reference = open_onnx(model, EngineOptions())
    inputs = drawn(reference.signature, batches(1, 3, 8), np.random.default_rng())
    report = accept(engine, reference, inputs, precision)
    engine.close()
    assert report.problems == []


def test_two_runs_under_way_give_their_own_rows(gpu: Gpu) -> None:
    engine = opened(gpu, DIGITS, BuildOptions(buckets=(1, 8)))
    first, second = drawn(engine.signature, batches(8, 8), np.random.default_rng())
    expected = [engine.run(inputs, {}, 8) for inputs in (first, second)]
    pending = [engine.begin(inputs, 8) for inputs in (first, second)]
    for one, run in zip(pending, expected, strict=True):
        found = engine.finish(one, {})
        for name in run:
            np.testing.assert_array_equal(found[name], run[name])
    engine.close()


def test_registered_memory_is_read_in_place_with_the_same_answers(gpu: Gpu) -> None:
    engine = opened(gpu, DIGITS, BuildOptions(buckets=(1, 8)))
    (inputs,) = drawn(engine.signature, batches(8), np.random.default_rng())
    ((name, array),) = inputs.items()
    expected = engine.run(inputs, {}, 8)
    pages = np.frombuffer(mmap.mmap(-1, 16 * mmap.PAGESIZE), np.uint8)
    own = pages[: array.nbytes].view(array.dtype).reshape(array.shape)
    own[...] = array
    assert engine.register(pages)
    found = engine.run({name: own}, {}, 8)
    for output in expected:
        np.testing.assert_array_equal(found[output], expected[output])
    engine.close()


def test_outputs_whose_shapes_depend_on_the_data(gpu: Gpu, tmp_path: Path) -> None:
    if gpu.library.ahead_of_time:
        pytest.skip("TensorRT-RTX builds no NonZero")
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["X"], ["AT"])],
        "where",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [8])],
        [helper.make_tensor_value_info("AT", TensorProto.INT64, [1, "found"])],
    )
    models.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m"
    )
    engine = opened(gpu, tmp_path / "m", BuildOptions(batched=False))
    for places in ([3], [0, 1, 7], [], list(range(8))):
        values = np.zeros(8, np.float32)
        values[places] = 1
        assert engine.run({"X": values}, {}, 1)["AT"].tolist() == [places]
    engine.close()
