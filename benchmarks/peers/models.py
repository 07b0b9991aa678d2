"""The models that every server serves, as the same ONNX files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
import numpy.typing as npt
import onnx
from inferd_server.settings.model import shipped_models
from onnx import ModelProto, TensorProto, helper

from benchmarks import resnet50

_ONE_IMAGE = (3, 224, 224)


@dataclass(frozen=True, slots=True)
class Model:
    """One FP32 input, one FP32 output; shapes are of one row, without the batch dimension."""

    name: str
    input: str
    output: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    max_batch: int

    def spec(self, root: Path) -> str:
        """Return what an adapter needs to serve it, as JSON."""
        return json.dumps({**asdict(self), "path": str(self.path(root))})

    def path(self, root: Path) -> Path:
        """Return its file in a repository laid out by `write`."""
        return root / self.name / "1/model.onnx"


DIGITS = Model("digits", "image", "probabilities", (8, 8), (10,), 32)
MEAN = Model("mean", "image", "mean", _ONE_IMAGE, (3,), 32)
RESNET50 = Model("resnet50", resnet50.INPUT, resnet50.OUTPUT, _ONE_IMAGE, (1000,), 8)
MODELS: Mapping[str, Model] = {model.name: model for model in (DIGITS, MEAN, RESNET50)}


def example(model: Model) -> npt.NDArray[np.float32]:
    """Return one row of random values: FP32 [1, *input_shape], in 0 to 1."""
    return np.random.default_rng(7).random((1, *model.input_shape), dtype=np.float32)


def build_mean() -> ModelProto:
    """Return a model that costs little but to receive: FP32 [batch, 3, 224, 224] -> [batch, 3]."""
    node = helper.make_node("ReduceMean", [MEAN.input], [MEAN.output], axes=[2, 3], keepdims=0)
    inputs = helper.make_tensor_value_info(MEAN.input, TensorProto.FLOAT, ["batch", *_ONE_IMAGE])
    outputs = helper.make_tensor_value_info(MEAN.output, TensorProto.FLOAT, ["batch", 3])
    return helper.make_model(
        helper.make_graph([node], MEAN.name, [inputs], [outputs]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 13)],
    )


def write(folder: Path, names: Iterable[str]) -> Mapping[str, Path]:
    """Lay out a repository of its own for each model, and return their roots by name."""
    roots = {name: folder / name for name in names}
    for name, root in roots.items():
        _write(MODELS[name], root)
    return roots


def _write(model: Model, root: Path) -> None:
    if model is DIGITS:
        copytree(shipped_models() / model.name, root / model.name)
        return
    path = model.path(root)
    path.parent.mkdir(parents=True)
    onnx.save(build_mean() if model is MEAN else resnet50.build_resnet50(), path)
    (root / model.name / "model.yaml").write_text(f"max_batch_size: {model.max_batch}\n")
