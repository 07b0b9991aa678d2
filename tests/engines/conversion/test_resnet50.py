"""A ResNet-50 quantised by the command: one file for ONNX Runtime and for TensorRT-RTX."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from inferd_client.cli import main
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import find

from benchmarks.resnet50 import INPUT, OUTPUT, build_resnet50
from tests import models
from tests.engines.tensorrt.conftest import RTX

Quantized: TypeAlias = Callable[..., tuple[Path, dict[str, Any]]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RTX.is_dir(), reason="TensorRT-RTX is not there: make tools"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model, and 16 rows for it."""
    folder = tmp_path_factory.mktemp("resnet50")
    images = np.random.default_rng(0).random((16, 3, 224, 224), dtype=np.float32)
    np.savez(folder / "rows.npz", **{INPUT: images})  # type: ignore[arg-type]
    return models.save(build_resnet50(), folder / "model.onnx"), folder / "rows.npz"


@pytest.fixture
def quantized(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Quantized:
    """Quantise with flags; return the file, and what the command tells."""

    def run(*flags: str) -> tuple[Path, dict[str, Any]]:
        model, rows = files
        made = tmp_path / "made.onnx"
        command = ["quantize", str(model), str(made), "--calibration", str(rows), "--json"]
        assert main([*command, *flags]) == 0
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert told["outputs"][OUTPUT]["agreement"] == 1
        return made, told

    return run


def plan_of(model: Path) -> bytes:
    """Build a plan with TensorRT-RTX, for a GPU that need not be here."""
    if str(RTX) not in sys.path:
        sys.path.append(str(RTX))
    builder = Builder(find(("tensorrt_rtx_bindings",)))
    plan, _ = builder.build(model, BuildOptions(buckets=(1, 4), targets=("8.9",)))
    return plan


def test_resnet50_in_int8_runs_in_onnx_runtime_and_becomes_a_plan(quantized: Quantized) -> None:
    made, told = quantized()
    assert told["excluded"] == {}
    assert told["outputs"][OUTPUT]["relative"] < 0.05
    assert told["bytes_after"] < told["bytes_before"] / 3.9
    # Weights of one byte: an FP32 plan has 100 MB.
    assert len(plan_of(made)) < 50e6


def test_resnet50_with_weights_in_bf16_runs_in_onnx_runtime_and_becomes_a_plan(
    quantized: Quantized,
) -> None:
    made, told = quantized("--precision", "bf16")
    assert told["outputs"][OUTPUT]["relative"] < 0.02
    assert told["bytes_after"] < told["bytes_before"] / 1.9
    # What is computed is FP32 again.
    assert len(plan_of(made)) > 100e6
