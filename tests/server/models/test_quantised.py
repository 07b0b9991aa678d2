"""A statically quantised model shares runs, and no answer depends on the company it had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_client.cli import main
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_values import read_facts
from inferd_server.models.batchable import find_batching
from inferd_server.models.row_independence import Budget, RowTrial
from inferd_server.models.row_verdict import RowVerdict

from tests.engines.conversion import convolution


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_a_quantised_model_is_batched_and_rows_keep_every_bit(
    tmp_path: Path, activations: str
) -> None:
    model, data = convolution.saved(tmp_path)
    made = tmp_path / "made.onnx"
    flags = ["--calibration", str(data), "--activations", activations]
    assert main(["quantize", str(model), str(made), *flags]) == 0
    engine, facts = open_onnx(made, EngineOptions()), read_facts(made)

    def trial(most: int) -> RowVerdict:
        return RowTrial(engine, facts, most, Budget(lambda: 0.0, lambda: 0, lambda: 0)).verdict()

    batching = find_batching(engine.signature, None, 32, facts, trial)
    assert batching.max_batch_size == 32
    assert batching.proven
    images = convolution.images(32, seed=9)
    together = engine.run({"image": images}, {}, 32)["logits"]
    for row, image in enumerate(images):
        alone = engine.run({"image": image[np.newaxis]}, {}, 1)["logits"]
        np.testing.assert_array_equal(alone[0], together[row])
