"""Samples and rows for the tests of drift."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from inferd.tensors import Array
from inferd_server.monitoring.drift.reference import RowBatch
from inferd_server.monitoring.samples import Sample
from inferd_server.settings.model import shipped_models
from sklearn.datasets import load_digits

DIGITS: Path = shipped_models() / "digits/1/model.onnx"


def sample(
    inputs: dict[str, Array], outputs: dict[str, Array] | None = None, version: str = "1"
) -> Sample:
    return Sample("m", version, "", 0.0, inputs, outputs or {})


def table(rng: np.random.Generator, rows: int, shift: float = 0.0) -> RowBatch:
    """Return rows of two columns, and a probability that follows from them."""
    x = rng.normal(shift, 1, (rows, 2)).astype(np.float32)
    p = 1 / (1 + np.exp(-x.sum(axis=1)))
    return RowBatch({"x": x}, {"p": np.stack([p, 1 - p], axis=1)})


@cache
def digits() -> tuple[Array, Array]:
    """Return all images of scikit-learn's digits [1797, 8, 8], and their labels."""
    found = load_digits()
    return found.images.astype(np.float32), found.target


@cache
def digits_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(DIGITS), options)


def answered(images: Array) -> RowBatch:
    """Return images with what the shipped model answers."""
    (found,) = digits_session().run(None, {"image": images.astype(np.float32)})
    return RowBatch({"image": images.astype(np.float32)}, {"probabilities": found})
