"""Plans built and loaded on the GPU of this host."""

from __future__ import annotations

import sys
from pathlib import Path

from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.opener import Gpu, wanted_on
from inferd_engines.tensorrt.options import BuildOptions

RTX = Path(__file__).parents[2] / ".tools/tensorrt_rtx"


def add_tools() -> None:
    """Let TensorRT-RTX be found where `make tools` puts it; one that is installed comes first."""
    if RTX.is_dir() and str(RTX) not in sys.path:
        sys.path.append(str(RTX))


def opened(gpu: Gpu, model: Path, options: BuildOptions, *, graphs: bool = True) -> TensorRTEngine:
    """Build a model's plan for this GPU and load it."""
    wanted = wanted_on(gpu, model, options)
    plan, _ = Builder(gpu.library).build(model, wanted.options)
    reference = open_onnx(model, EngineOptions())
    used = gpu.graphs if graphs else None
    return load(gpu.library, gpu.device, plan, reference.signature, wanted.options, used)
