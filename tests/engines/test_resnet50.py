"""The ResNet-50 of the benchmarks computes something, and each row by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx

from benchmarks.resnet50 import INPUT, OUTPUT, build_resnet50
from tests import models


def test_rows_agree_with_single_runs_and_differ_from_each_other(tmp_path: Path) -> None:
    engine = open_onnx(models.save(build_resnet50(), tmp_path / "model.onnx"), EngineOptions())
    images = np.random.default_rng(0).random((8, 3, 224, 224), dtype=np.float32)
    batch = engine.run({INPUT: images}, {}, 8)[OUTPUT]
    assert batch.shape == (8, 1000)
    assert np.isfinite(batch).all()
    for index in (0, 7):
        single = engine.run({INPUT: images[index : index + 1]}, {}, 1)[OUTPUT]
        np.testing.assert_allclose(single[0], batch[index], rtol=1e-3, atol=1e-6)
    assert np.abs(batch[0] - batch[7]).max() > 1e-5
