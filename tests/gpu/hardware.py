"""Plans built and loaded on the GPU of this host."""

from __future__ import annotations

from pathlib import Path

from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.options import BuildOptions

from benchmarks.gpu.subject import build


def opened(gpu: Gpu, model: Path, options: BuildOptions, *, graphs: bool = True) -> TensorRTEngine:
    """Build a model's plan for this GPU and load it."""
    return build(gpu, model.stem, model, options).engine(graphs=graphs)
