"""Which engine serves on which host, with the reason where it is not TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import EngineOptions, PlanState
from inferd_engines.standard import cpu_engines, standard_engines
from inferd_engines.tensorrt.device import load_driver, open_device
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.shim import Library, find

from tests import models
from tests.device.standin import NO_DEVICE
from tests.engines.tensorrt.bench import standin


def missing(_: str) -> object:
    raise ModuleNotFoundError("No module named 'pycuda'")


def without_driver(_: str) -> object:
    raise ImportError("libcuda.so.1: cannot open shared object file")


def host(load: Callable[[str], object]) -> Callable[[], Gpu]:
    """A host with TensorRT, whose pycuda is what `load` gives."""

    def found() -> Gpu:
        return Gpu(Library(None, "tensorrt", "0"), open_device(load_driver(load)))

    return found


def host_with(count: int, init: int = 0) -> Callable[[], Gpu]:
    """A host with TensorRT and pycuda, whose driver has so many GPUs, or does not start."""

    def found() -> Gpu:
        here = standin()
        here.devices(count, init)
        try:
            return Gpu(Library(None, "tensorrt", "0"), open_device(load_driver()))
        finally:
            here.mend()

    return found


def without_tensorrt() -> Gpu:
    find(("no_such_tensorrt",))
    raise AssertionError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m/1/model.onnx"
    path.parent.mkdir(parents=True)
    models.save(models.scale(2.0), path)
    return path


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (without_tensorrt, "TensorRT: TensorRT cannot be imported: none of no_such_tensorrt is"),
        (host(missing), "TensorRT: pycuda is not installed"),
        (host(without_driver), "TensorRT: there is no NVIDIA driver here"),
        (host_with(0), "TensorRT: the NVIDIA driver finds no GPU"),
        (host_with(1, NO_DEVICE), "does not start (cuInit failed: no CUDA-capable device"),
    ],
    ids=["no TensorRT", "no pycuda", "no driver", "no device", "a driver that fails"],
)
def test_a_host_that_cannot_run_plans_serves_on_the_processor_and_says_why(
    model: Path, tmp_path: Path, find: Callable[[], Gpu], words: str
) -> None:
    opener = standard_engines(str(tmp_path / "plans"), find).opener
    engine = opener(model, EngineOptions(extra={"tensorrt.precision": "fp16"}))
    assert engine.name == "onnxruntime/CPUExecutionProvider"
    assert words in engine.reason
    row = {"INPUT0": np.ones((1, 4), np.float32)}
    assert engine.run(row, {}, 1)["OUTPUT0"][0, 0] == 2


def test_without_a_store_nobody_looks_for_tensorrt(model: Path) -> None:
    def nobody() -> Gpu:
        raise AssertionError

    engine = standard_engines("", nobody).opener(model, EngineOptions())
    assert engine.reason == ""


def test_a_server_that_leaves_the_gpu_alone_serves_on_the_processor_and_says_why(
    model: Path,
) -> None:
    options = EngineOptions(
        providers=("CUDAExecutionProvider",), extra={"tensorrt.precision": "fp16"}
    )
    engine = cpu_engines("its workers died").opener(model, options)
    assert engine.name == "onnxruntime/CPUExecutionProvider"
    assert engine.reason == "the GPU: its workers died"
    assert engine.plan_state is PlanState.FALLBACK
