"""Model files that are whole load, weights beside them too; others are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import open_onnx

from tests import models


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        open_onnx(tmp_path / "model.onnx", EngineOptions())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_said_not_to_be_whole(share: float, tmp_path: Path) -> None:
    whole = models.add_sub().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(EngineError, match=r"model\.onnx is not a whole ONNX file"):
        open_onnx(path, EngineOptions())


def test_a_file_of_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(EngineError, match="another format") as refused:
        open_onnx(path, EngineOptions())
    assert "\n" not in str(refused.value)


def test_weights_in_a_file_beside_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1" / "model.onnx"
    path.parent.mkdir()
    onnx.save(
        models.no_batch(), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    assert (path.parent / "weights").stat().st_size > 0
    monkeypatch.chdir(tmp_path)
    engine = open_onnx(Path("1/model.onnx"), EngineOptions())
    result = engine.run({"INPUT0": np.ones((3, 4), dtype=np.float32)}, {}, 1)["OUTPUT0"]
    np.testing.assert_array_equal(result, np.full((3, 2), 4, dtype=np.float32))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        models.no_batch(), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    (tmp_path / "weights").unlink()
    with pytest.raises(EngineError, match="weights"):
        open_onnx(path, EngineOptions())
