"""`inferd quantize` and `inferd check` on a real network: good files, or a sentence and none."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from inferd_client.cli import main
from onnx import helper

from tests import models
from tests.engines.conversion import convolution
from tests.engines.conversion.conftest import SMALL_DISK


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return convolution.saved(tmp_path)


def quantize(model: Path, data: Path, target: Path, *flags: str) -> int:
    return main(["quantize", str(model), str(target), "--calibration", str(data), *flags])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize(
    "flags",
    [(), ("--activations", "uint8"), ("--precision", "fp16"), ("--precision", "bf16")],
)
def test_a_quantised_model_stays_near_the_original(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
) -> None:
    target = tmp_path / "made.onnx"
    assert quantize(*files, target, "--json", *flags) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outputs"]["logits"]["relative"] < 0.1
    assert told["excluded"] == {}
    assert told["bytes_after"] == target.stat().st_size
    assert (operators(target)["DequantizeLinear"] > 0) == ("--precision" not in flags)
    check = ["check", str(files[0]), str(target), "--data", str(files[1]), "--json"]
    assert main(check) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["outputs"]["logits"]["worst"] == told["outputs"]["logits"]["worst"]
    assert [one["rows"] for one in checked["speed"]] == [1, 32]
    assert main([*check, "--max-error", "0"]) == 1


def test_int8_has_symmetric_scales_for_each_channel(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    assert quantize(*files, tmp_path / "made.onnx") == 0
    graph = onnx.load(str(tmp_path / "made.onnx")).graph
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [held[node.input[2]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert max(zero.size for zero in zeros) == 8


def test_weights_in_bf16_keep_the_range_of_fp32_and_half_the_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # FP16 ends at 65,504.
    model = models.save(convolution.network(scale=1e6), tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", image=convolution.images(8))
    target = tmp_path / "made.onnx"
    assert quantize(model, tmp_path / "rows.npz", target, "--precision", "bf16", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    # Eight bits of a number are kept: each weight is off by at most a 256th.
    assert 0 < told["outputs"]["logits"]["relative"] < 1 / 256
    graph = onnx.load(str(target)).graph
    kept = {
        one.name: onnx.helper.tensor_dtype_to_np_dtype(one.data_type) for one in graph.initializer
    }
    assert {name for name, kind in kept.items() if kind.itemsize == 2} == {
        "w0_bf16", "w1_bf16", "w2_bf16",
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_a_model_in_other_numbers_than_fp32_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    inputs, outputs = [models.tensor("x", "FP64", ["n", 4])], [models.tensor("y", "FP64", ["n", 4])]
    weights = [onnx.numpy_helper.from_array(np.eye(4), "w")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = models.model([product], inputs, outputs, weights)
    model, target = models.save(made, tmp_path / "model.onnx"), tmp_path / "made.onnx"
    np.savez(tmp_path / "rows.npz", x=np.ones((4, 4)))
    assert quantize(model, tmp_path / "rows.npz", target, "--precision", precision) == 1
    text = f"model.onnx has nothing in FP32 that could become {precision}"
    assert text in capsys.readouterr().err
    assert not target.exists()


def test_nodes_that_hurt_stay_as_they_were(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "made.onnx"
    assert quantize(*files, target, "--json") == 0
    whole = json.loads(capsys.readouterr().out)["outputs"]["logits"]["relative"]
    assert quantize(*files, target, "--json", "--max-error", str(whole * 0.7)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["outputs"]["logits"]["relative"] <= whole * 0.7
    assert 0 < len(told["excluded"]) < 5
    assert set(told["excluded"]) <= {"first", "relu", "pool", "second", "last", "flatten"}


def test_what_cannot_be_near_enough_is_not_written(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(*files, tmp_path / "made.onnx", "--max-error", "1e-9") == 1
    assert "leaves no node with weights to quantise" in capsys.readouterr().err
    assert not (tmp_path / "made.onnx").exists()


def test_a_model_without_weights_is_refused_with_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, outputs = [models.tensor("x", "FP32", ["n", 3])], [models.tensor("y", "FP32", ["n", 3])]
    sine = models.model([helper.make_node("Sin", ["x"], ["y"])], inputs, outputs)
    np.savez(tmp_path / "rows.npz", x=np.zeros((4, 3), np.float32))
    model = models.save(sine, tmp_path / "model.onnx")
    assert quantize(model, tmp_path / "rows.npz", tmp_path / "made.onnx") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no operator to quantise (Conv, ConvTranspose, Gemm, MatMul); it has Sin" in error
    assert not (tmp_path / "made.onnx").exists()


def test_outputs_without_rows_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, outputs = [models.tensor("x", "FP32", ["n", 3])], [models.tensor("y", "FP32", [])]
    total = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    model = models.save(models.model([total], inputs, outputs), tmp_path / "model.onnx")
    np.savez(tmp_path / "rows.npz", x=np.zeros((4, 3), np.float32))
    assert main(["check", str(model), str(model), "--data", str(tmp_path / "rows.npz")]) == 1
    assert "the output 'y' has no row for each row" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (convolution.images(4)[:, :1], "'image' has shape [4, 1, 8, 8], not [?, 3, 8, 8]"),
        (convolution.images(4).astype(np.float64), "'image' is float64"),
        (convolution.images(0), "'image' is empty"),
        (np.full_like(convolution.images(4), np.nan), "'image' has NaN or infinity in row 0"),
    ],
)
def test_calibration_rows_that_are_not_the_models_write_nothing(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: npt.NDArray[Any],
    sentence: str,
) -> None:
    np.savez(files[1], image=rows)
    assert quantize(*files, tmp_path / "made.onnx") == 1
    error = capsys.readouterr().err
    assert error.startswith("inferd quantize: ")
    assert error.count("\n") == 1
    assert sentence in error
    assert not (tmp_path / "made.onnx").exists()


def test_a_model_that_is_not_there_is_named(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(tmp_path / "none.onnx", files[1], tmp_path / "made.onnx") == 1
    assert "none.onnx" in capsys.readouterr().err


def test_a_quantised_model_is_not_quantised_again(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.onnx"
    assert quantize(*files, made) == 0
    assert quantize(made, files[1], tmp_path / "again.onnx") == 1
    assert "has Q/DQ nodes already" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(
    files: tuple[Path, Path], disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = disk / "made.onnx"
    target.write_bytes(b"before")
    assert quantize(*files, target) == 1
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["made.onnx"]
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_a_full_disk_for_temporary_files_leaves_nothing(
    files: tuple[Path, Path],
    disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    (disk / "full").write_bytes(bytes(SMALL_DISK))
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    assert quantize(*files, tmp_path / "made.onnx", "--precision", precision) == 1
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["full"]
    assert not (tmp_path / "made.onnx").exists()


def test_golden_answers_and_calibration_make_a_release(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    made, golden = tmp_path / "made.onnx", tmp_path / "golden.npz"
    np.savez(files[1], image=convolution.images(128))
    assert quantize(*files, made, "--golden", str(golden)) == 0
    store = ["--store", str(tmp_path / "store")]
    flags = ["--golden", str(golden), "--reference", str(files[1]), *store]
    assert main(["models", "add", "small", str(made), *flags]) == 0
    assert main(["models", "promote", "small", "1", *store]) == 0
