"""The models of the server that the tests of this folder share, and requests that fit them."""

from __future__ import annotations

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Array

from tests import models
from tests.server.serving import Running, arrays, infer_request

DATATYPES = tuple(models.ELEMENT_TYPES)

SERVED = {
    "simple": models.add_sub(),
    "strings": models.strings(),
    "joined": models.joined(),
    "no_batch": models.no_batch(),
    "free": models.free_dims(),
    "scaled": {1: models.scale(2.0), 3: models.scale(3.0)},
    "free_anywhere": models.identity("FP32", "BYTES", dims=("a", "b", "c")),
    "images": models.identity("FP32", dims=("batch", 3, 8, 8)),
    "big": models.identity("FP32", dims=("batch", "size")),
    **{f"rows_{name}": models.identity(name) for name in DATATYPES},
    **{f"scalar_{name}": models.identity(name, dims=()) for name in DATATYPES},
    **{f"one_{name}": models.identity(name, dims=(3,)) for name in DATATYPES},
}
YAML = {
    "images": "format: {INPUT0: NCHW}\n",
    "scaled": "versions: all\n",
    "free_anywhere": "max_batch_size: 0\n",
    "rows_FP32": 'labels:\n  OUTPUT0: ["zero", "one", "two"]\n',
}


def simple(**changes: Array | None) -> ModelInferRequest:
    """Return a request that `simple` answers, with inputs replaced, or left out by None."""
    inputs: dict[str, Array | None] = {
        "INPUT0": np.arange(16, dtype=np.int32).reshape(1, 16),
        "INPUT1": np.ones((1, 16), dtype=np.int32),
    }
    inputs |= changes
    return infer_request("simple", {k: v for k, v in inputs.items() if v is not None})


def assert_still_serves(server: Running) -> None:
    """A good request gets the right answer."""
    outputs = arrays(server.infer(simple()))
    np.testing.assert_array_equal(outputs["OUTPUT0"], np.arange(16).reshape(1, 16) + 1)
    np.testing.assert_array_equal(outputs["OUTPUT1"], np.arange(16).reshape(1, 16) - 1)
