"""Train the shipped `digits` model: python examples/digits/train.py.

Three small networks are trained on scikit-learn's 8x8 digits and their probabilities averaged.
Everything is seeded: with the locked packages on one kind of CPU, a second run writes the same
bytes. Source of the data: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits,
UCI Machine Learning Repository, 1998 (CC BY 4.0), in scikit-learn's copy of the test part.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Array: TypeAlias = npt.NDArray[Any]

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "server/inferd_server/shipped_models/digits/1/model.onnx"
HELDOUT = HERE / "heldout.npz"

HELDOUT_IMAGES = 360
SPLIT_SEED = 0
NETWORK_SEEDS = (0, 1, 2)
HIDDEN = 256
EPOCHS = 25
WEIGHT_DECAY = 0.01
WHITE = 16.0
"""The largest pixel value of the data."""
LEAST_ACCURACY = 0.975


@dataclass(frozen=True, slots=True)
class Split:
    """Images float32 [n, 8, 8] of pixels 0 to 16, and labels int64 [n]."""

    train_images: Array
    train_labels: Array
    heldout_images: Array
    heldout_labels: Array


def load_split() -> Split:
    """Return scikit-learn's digits in the fixed split: 1437 to train, 360 held out."""
    digits = load_digits()
    images, labels = digits.images.astype(np.float32), digits.target.astype(np.int64)
    train_images, heldout_images, train_labels, heldout_labels = train_test_split(
        images, labels, test_size=HELDOUT_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    return Split(train_images, train_labels, heldout_images, heldout_labels)


def shifted(images: Array) -> Array:
    """Return every image [n, 8, 8] moved by -1, 0 and 1 pixels each way: [9n, 8, 8]."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.concatenate([padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)])


def train_network(images: Array, labels: Array, seed: int) -> MLPClassifier:
    """Train one network: 64 inputs, HIDDEN rectified units, 10 classes."""
    network = MLPClassifier(
        (HIDDEN,),
        alpha=WEIGHT_DECAY,
        batch_size=64,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        random_state=seed,
    )
    # One thread: the order of summation, and with it every bit, depends on the number.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is meant
        return network.fit(images.reshape(len(images), -1) / WHITE, labels)


def export(networks: Sequence[MLPClassifier]) -> ModelProto:
    """Return image FP32 [batch, 8, 8] of raw pixels -> probabilities FP32 [batch, 10]."""
    weights = [
        numpy_helper.from_array(np.array([0, 64], dtype=np.int64), "flat"),
        numpy_helper.from_array(np.array(1 / WHITE, dtype=np.float32), "scale"),
    ]
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
    ]
    for index, network in enumerate(networks):
        nodes += layers(index)
        weights += parameters(index, network)
    votes = [f"vote{index}" for index in range(len(networks))]
    nodes.append(helper.make_node("Mean", votes, ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, producer_name="inferd", ir_version=8, opset_imports=[opset])
    checker.check_model(model, full_check=True)
    return model


def layers(index: int) -> list[NodeProto]:
    """Return the nodes of one network, from `scaled` to its vote."""
    hidden, logits = f"hidden{index}", f"logits{index}"
    return [
        helper.make_node("Gemm", ["scaled", f"w{index}.0", f"b{index}.0"], [hidden]),
        helper.make_node("Relu", [hidden], [f"{hidden}.relu"]),
        helper.make_node("Gemm", [f"{hidden}.relu", f"w{index}.1", f"b{index}.1"], [logits]),
        helper.make_node("Softmax", [logits], [f"vote{index}"], axis=1),
    ]


def parameters(index: int, network: MLPClassifier) -> list[TensorProto]:
    """Return the weights [in, out] and biases [out] of one network as FP32 tensors."""
    named = {
        f"{kind}{index}.{layer}": values
        for kind, arrays in (("w", network.coefs_), ("b", network.intercepts_))
        for layer, values in enumerate(arrays)
    }
    return [
        numpy_helper.from_array(values.astype(np.float32), name) for name, values in named.items()
    ]


def accuracy(networks: Sequence[MLPClassifier], images: Array, labels: Array) -> float:
    """Return the share of images that the networks' averaged probabilities get right."""
    pixels = images.reshape(len(images), -1) / WHITE
    votes = sum(network.predict_proba(pixels) for network in networks)
    return float(np.mean(np.argmax(votes, axis=1) == labels))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the model and the held-out images, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="where to write the model")
    parser.add_argument("--heldout", type=Path, default=HELDOUT, help="where to write the images")
    options = parser.parse_args(arguments)
    split = load_split()
    images = shifted(split.train_images)
    labels = np.tile(split.train_labels, 9)
    networks = [train_network(images, labels, seed) for seed in NETWORK_SEEDS]
    score = accuracy(networks, split.heldout_images, split.heldout_labels)
    print(f"accuracy on {len(split.heldout_labels)} held-out images: {score:.4f}")
    if score < LEAST_ACCURACY:
        return 1
    options.model.parent.mkdir(parents=True, exist_ok=True)
    options.model.write_bytes(export(networks).SerializeToString(deterministic=True))
    np.savez_compressed(
        options.heldout,
        images=split.heldout_images.astype(np.uint8),
        labels=split.heldout_labels,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
