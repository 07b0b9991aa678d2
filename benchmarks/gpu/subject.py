"""What is measured: a model's plan, which can be loaded as often as it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from inferd_engines.arrays import shape_of
from inferd_engines.engine import Array, EngineOptions, Signature
from inferd_engines.onnx import open_onnx
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.opener import Gpu, wanted_on
from inferd_engines.tensorrt.options import BuildOptions


@dataclass(frozen=True, slots=True)
class Subject:
    """A plan for one GPU, whose context is current while it is used."""

    name: str
    gpu: Gpu
    plan: bytes
    signature: Signature
    options: BuildOptions

    @property
    def buckets(self) -> tuple[int, ...]:
        """Rows of each profile, rising."""
        return tuple(sorted(set(self.options.buckets)))

    def engine(self, *, graphs: bool) -> TensorRTEngine:
        """Load the plan; whoever gets the engine closes it.

        Raises:
            TensorRTError: it cannot be loaded, or does not fit.
        """
        gpu, plan = self.gpu, self.plan
        return load(gpu.library, gpu.device, plan, self.signature, self.options, graphs=graphs)

    def inputs(self, rows: int, generator: np.random.Generator) -> dict[str, Array]:
        """Draw inputs of so many rows, from 0 to 1; free dimensions besides them are 1."""
        return {
            tensor.name: generator.random(shape_of(tensor, rows)).astype(tensor.dtype)
            for tensor in self.signature.inputs
        }


def build(gpu: Gpu, name: str, model: Path, options: BuildOptions) -> Subject:
    """Build a model's plan for a GPU; takes seconds to minutes.

    Raises:
        TensorRTError: TensorRT cannot build it.
        EngineError: ONNX Runtime cannot read the model.
    """
    wanted = wanted_on(gpu, model, options)
    plan, _ = Builder(gpu.library).build(model, wanted.options)
    reference = open_onnx(model, EngineOptions())
    reference.close()
    return Subject(name, gpu, plan, reference.signature, wanted.options)
