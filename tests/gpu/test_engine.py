"""Plans on hardware: the contract, right answers, and two runs under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.gate import accept, drawn
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range

from benchmarks import resnet50
from benchmarks.gpu.subject import build
from tests import models
from tests.engines.cases import CASES, FREE_DIMS, NO_BATCH, Case
from tests.engines.contract import EngineContract
from tests.gpu.subjects import DIGITS

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
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
        self._engines.append(build(self._found, case.name, path, options).engine(graphs=True))
        return self._engines[-1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["digits", "resnet50"])
def test_answers_are_those_of_onnx_runtime_on_fresh_random_inputs(
    gpu: Gpu, tmp_path: Path, name: str, precision: str
) -> None:
    model = DIGITS if name == "digits" else resnet50.write(tmp_path)
    options = BuildOptions(precision, buckets=(1, 4, 8))
    engine = build(gpu, name, model, options).engine(graphs=True)
    reference = open_onnx(model, EngineOptions())
    inputs = drawn(reference.signature, (1, 3, 8), np.random.default_rng())
    report = accept(engine, reference, inputs, precision)
    engine.close()
    assert report.problems == []


def test_two_runs_under_way_give_their_own_rows(gpu: Gpu) -> None:
    engine = build(gpu, "digits", DIGITS, BuildOptions(buckets=(1, 8))).engine(graphs=True)
    first, second = drawn(engine.signature, (8, 8), np.random.default_rng())
    expected = [engine.run(inputs, {}, 8) for inputs in (first, second)]
    pending = [engine.begin(inputs, 8) for inputs in (first, second)]
    for one, run in zip(pending, expected, strict=True):
        found = engine.finish(one, {})
        for name in run:
            np.testing.assert_array_equal(found[name], run[name])
    engine.close()
