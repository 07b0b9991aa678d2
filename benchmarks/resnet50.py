"""Build ResNet-50 for measuring: python -m benchmarks.resnet50 FOLDER.

The architecture is the one in the `onnx` package's own test data (`light_resnet50`, where all
weights are the same constant); this gives it a free batch dimension and seeded random weights.
Its answers mean nothing; its cost is ResNet-50's.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

INPUT = "gpu_0/data_0"
OUTPUT = "gpu_0/softmax_1"
SEED = 50
OPSET = 13

# Which input of which operator a weight is says how it is drawn.
_SCALE, _BIAS, _MEAN, _VARIANCE = 1, 2, 3, 4


def build_resnet50(seed: int = SEED) -> ModelProto:
    """Return ResNet-50: INPUT FP32 [batch, 3, 224, 224] -> OUTPUT FP32 [batch, 1000]."""
    model = onnx.load(light_resnet50())
    weights = drawn_weights(model.graph, np.random.default_rng(seed))
    nodes = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    reshape = numpy_helper.from_array(np.array([0, -1], dtype=np.int64), "flat")
    for node in nodes:
        if node.op_type == "Reshape":
            node.input[1] = reshape.name
    return helper.make_model(
        helper.make_graph(
            nodes,
            "resnet50",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, 224, 224])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 1000])],
            [*weights, reshape],
        ),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def light_resnet50() -> Path:
    """Return the file in the installed `onnx` package.

    Raises:
        FileNotFoundError: this release of `onnx` does not have it.
    """
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this release of onnx does not ship it")
    return path


def drawn_weights(graph: GraphProto, random: np.random.Generator) -> list[TensorProto]:
    """Return an initializer for every weight, in the order in which the nodes read them."""
    shapes = weight_shapes(graph)
    return [
        numpy_helper.from_array(draw(node, position, shapes[name], random), name)
        for node in graph.node
        for position, name in enumerate(node.input)
        if name in shapes
    ]


def weight_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight: small ones are stored, others filled at run time."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    small = {
        name: tuple(tensor.dims)
        for name, tensor in stored.items()
        if tensor.data_type == TensorProto.FLOAT
    }
    filled = {
        node.output[0]: tuple(numpy_helper.to_array(stored[node.input[0]]).tolist())
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    return small | filled


def draw(
    node: NodeProto, position: int, shape: tuple[int, ...], random: np.random.Generator
) -> npt.NDArray[Any]:
    """Draw the weight at this input of this node so that activations keep their scale.

    Convolutions and the last layer follow He et al., "Delving Deep into Rectifiers" (2015):
    a variance of 2 / fan-in. Batch normalisation, which ends every residual branch, scales
    by about 0.7, so that the sums over 16 blocks grow and saturate nothing.
    """
    if node.op_type == "BatchNormalization":
        low, high = {
            _SCALE: (0.6, 0.8),
            _BIAS: (-0.1, 0.1),
            _MEAN: (-0.1, 0.1),
            _VARIANCE: (0.9, 1.1),
        }[position]
        return random.uniform(low, high, shape).astype(np.float32)
    if len(shape) == 1:
        return np.zeros(shape, dtype=np.float32)
    deviation = math.sqrt(2 / math.prod(shape[1:]))
    drawn: npt.NDArray[np.float32] = random.standard_normal(shape, dtype=np.float32)
    return drawn * np.float32(deviation)


def write(folder: Path, name: str = "resnet50") -> Path:
    """Write FOLDER/NAME/1/model.onnx and return its path."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build_resnet50(), path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the model repository to write into")
    parser.add_argument("--name", default="resnet50", help="the model's name there")
    options = parser.parse_args(arguments)
    print(write(options.folder, options.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
