"""A small convolutional network with drawn weights, and rows for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper, numpy_helper

from tests import models

SIDE = 8


def network(batch: int | str = "batch", scale: float = 1.0) -> ModelProto:
    """`image` FP32 [batch, 3, 8, 8] -> `logits` FP32 [batch, 5].

    With a scale, one channel of the second convolution is that much larger than the others.
    """
    random = np.random.default_rng(3)
    kernels = random.normal(0, 0.3, (8, 3, 3, 3)), random.normal(0, 0.3, (8, 8, 3, 3))
    weights = {
        "w0": kernels[0], "b0": random.normal(0, 0.1, 8), "w1": kernels[1],
        "w2": random.normal(0, 0.3, (8 * 16, 5)), "b2": random.normal(0, 0.1, 5),
    }  # fmt: skip
    weights["w1"][0] *= scale
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("MaxPool", ["r0"], ["p0"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p0", "w1"], ["c1"], "second", pads=[1] * 4),
        helper.make_node("Flatten", ["c1"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["logits"], "last"),
    ]
    return models.model(
        nodes,
        [models.tensor("image", "FP32", [batch, 3, SIDE, SIDE])],
        [models.tensor("logits", "FP32", [batch, 5])],
        [numpy_helper.from_array(one.astype(np.float32), name) for name, one in weights.items()],
    )


def images(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return FP32 [count, 3, 8, 8]."""
    return np.random.default_rng(seed).random((count, 3, SIDE, SIDE), dtype=np.float32)


def saved(folder: Path, count: int = 64) -> tuple[Path, Path]:
    """Write the network and rows for it; return both files."""
    data = folder / "rows.npz"
    np.savez(data, image=images(count))
    return models.save(network(), folder / "model.onnx"), data
