"""Small models run on one thread, and what may be large on every core."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import EngineOptions, Tensor
from inferd_engines.onnx import is_small_model, open_onnx
from inferd_engines.onnx_session import Source
from inferd_engines.onnx_threads import SMALL_FILES, SMALL_ROW, is_small_row
from onnx import ModelProto

from tests import models


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((None, 64), True),
        ((None,), True),
        ((), True),
        ((None, SMALL_ROW), True),
        ((None, SMALL_ROW + 1), False),
        ((None, 3, 224, 224), False),
        ((None, None), False),
    ],
)
def test_a_row_is_small_by_its_fixed_elements(shape: tuple[int | None, ...], small: bool) -> None:
    assert is_small_row(Tensor("INPUT0", np.dtype(np.float32), shape)) is small


def test_external_data_counts_as_files_of_the_model(tmp_path: Path) -> None:
    content = models.add_sub().SerializeToString()
    small = Source(tmp_path, content, {})
    assert is_small_model(small)
    assert not is_small_model(replace(small, beside={"weights": bytes(SMALL_FILES)}))


@pytest.mark.parametrize(
    "proto", [models.add_sub(), models.big(SMALL_ROW + 1)], ids=["small", "big"]
)
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_choice_of_threads_never_changes_what_is_served(
    proto: ModelProto, threads: int, tmp_path: Path
) -> None:
    path = models.save(proto, tmp_path / "model.onnx")
    engine = open_onnx(path, EngineOptions(threads=threads))
    engine.warm(2)
    assert [tensor.name for tensor in engine.signature.inputs] == [
        i.name for i in proto.graph.input
    ]
