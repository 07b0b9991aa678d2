"""A ResNet-50 quantised by the command: one file for ONNX Runtime and for TensorRT-RTX."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from inferd_client.cli import main
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import find

from benchmarks.resnet50 import INPUT, OUTPUT, build_resnet50
from tests import models
from tests.engines.tensorrt.conftest import RTX


@pytest.mark.slow
@pytest.mark.skipif(not RTX.is_dir(), reason="TensorRT-RTX is not there: make tools")
def test_resnet50_in_int8_runs_in_onnx_runtime_and_becomes_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, made = models.save(build_resnet50(), tmp_path / "model.onnx"), tmp_path / "made.onnx"
    data = tmp_path / "rows.npz"
    images = np.random.default_rng(0).random((16, 3, 224, 224), dtype=np.float32)
    np.savez(data, **{INPUT: images})  # type: ignore[arg-type]
    assert main(["quantize", str(model), str(made), "--calibration", str(data), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["excluded"] == {}
    assert told["outputs"][OUTPUT]["relative"] < 0.05
    assert told["outputs"][OUTPUT]["agreement"] == 1
    assert told["bytes_after"] < told["bytes_before"] / 3.9
    if str(RTX) not in sys.path:
        sys.path.append(str(RTX))
    builder = Builder(find(("tensorrt_rtx_bindings",)))
    plan, _ = builder.build(made, BuildOptions(buckets=(1, 4), targets=("8.9",)))
    # Weights of one byte: an FP32 plan has 100 MB.
    assert len(plan) < 50e6
