"""ONNX Runtime keeps the engine contract, and what is its own: types, text, BF16, import time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.engine import Engine, EngineError, EngineOptions, Opener, Tensor
from inferd_engines.onnx import OnnxEngine, open_onnx
from inferd_engines.onnx_run import decode_text, encode_text
from onnx import TensorProto, helper

from tests import models
from tests.engines.cases import Case
from tests.engines.contract import EngineContract


class TestOnnxEngine(EngineContract):
    def open(self, case: Case, folder: Path) -> Engine:
        opener: Opener = open_onnx
        return opener(models.save(case.model, folder / "model.onnx"), EngineOptions())


def opened(proto: onnx.ModelProto, folder: Path, **options: object) -> OnnxEngine:
    path = models.save(proto, folder / "model.onnx")
    return open_onnx(path, EngineOptions(**options))  # type: ignore[arg-type]


def test_the_runtime_is_imported_only_when_an_engine_opens() -> None:
    code = (
        "import sys, inferd_engines.onnx;"
        "sys.exit(any(name.startswith('onnxruntime') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sequence_output_is_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("OUTPUT0", TensorProto.FLOAT, None)
    node = helper.make_node("SequenceConstruct", ["INPUT0"], ["OUTPUT0"])
    proto = models.model([node], [models.tensor("INPUT0", "FP32", ("batch", 4))], [sequence])
    with pytest.raises(EngineError, match=r"output 'OUTPUT0' is seq\(tensor\(float\)\)"):
        opened(proto, tmp_path)


def test_a_type_without_a_protocol_datatype_is_refused(tmp_path: Path) -> None:
    inner = helper.make_tensor_value_info("OUTPUT0", TensorProto.FLOAT8E4M3FN, ["batch"])
    node = helper.make_node("Cast", ["INPUT0"], ["OUTPUT0"], to=TensorProto.FLOAT8E4M3FN)
    proto = models.model([node], [models.tensor("INPUT0", "FP32", ("batch",))], [inner])
    with pytest.raises(EngineError, match="float8e4m3fn"):
        opened(proto, tmp_path)


def test_bf16_mixes_with_other_dtypes(tmp_path: Path) -> None:
    engine = opened(models.identity("FP32", "BF16", "BOOL"), tmp_path)
    wanted = {tensor.name: tensor.dtype for tensor in engine.signature.inputs}
    inputs = {name: np.eye(4).astype(dtype) for name, dtype in wanted.items()}
    buffer = np.zeros((4, 4), dtype=np.float32)
    results = engine.run(inputs, {"OUTPUT0": buffer}, 4)
    assert results["OUTPUT0"] is buffer
    for index in range(3):
        np.testing.assert_array_equal(results[f"OUTPUT{index}"], inputs[f"INPUT{index}"])


def test_bf16_is_cast_by_the_runtime_as_by_numpy(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["INPUT0"], ["OUTPUT0"], to=TensorProto.BFLOAT16)
    source = [models.tensor("INPUT0", "FP32", ("batch",))]
    target = [models.tensor("OUTPUT0", "BF16", ("batch",))]
    values = np.linspace(-3, 3, 101, dtype=np.float32)
    engine = opened(models.model([node], source, target), tmp_path)
    result = engine.run({"INPUT0": values}, {}, 101)
    np.testing.assert_array_equal(result["OUTPUT0"], values.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("datatype", ["BF16", "FP16", "INT16"])
def test_every_bit_pattern_passes_unchanged(datatype: str, tmp_path: Path) -> None:
    engine = opened(models.identity(datatype, dims=("batch",)), tmp_path)
    bits = np.arange(2**16, dtype=np.uint16)
    inputs = {"INPUT0": bits.view(engine.signature.inputs[0].dtype)}
    result = engine.run(inputs, {}, len(bits))["OUTPUT0"]
    np.testing.assert_array_equal(result.view(np.uint16), bits)


def test_outputs_beside_bf16_outlive_the_engine(tmp_path: Path) -> None:
    engine = opened(models.identity("FP32", "BF16", dims=("batch", 5000)), tmp_path)
    inputs = {
        tensor.name: np.full((8, 5000), 3, dtype=tensor.dtype) for tensor in engine.signature.inputs
    }
    results = engine.run(inputs, {}, 8)
    engine.run({name: array * 2 for name, array in inputs.items()}, {}, 8)
    engine.close()
    del engine
    for name in ("OUTPUT0", "OUTPUT1"):
        assert (results[name] == 3).all()


def test_strings_with_bf16_outputs_are_refused_at_open(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="BF16"):
        opened(models.identity("BYTES", "BF16"), tmp_path)


@given(st.lists(st.text(), max_size=20))
def test_text_survives_decoding_and_encoding(texts: list[str]) -> None:
    data = np.empty((1, len(texts)), dtype=object)
    for index, text in enumerate(texts):
        data[0, index] = text.encode(errors="surrogatepass").decode(errors="replace").encode()
    text_only = Tensor("INPUT0", np.dtype(np.object_), (None, None), text=True)
    assert encode_text(text_only, decode_text(text_only, data)).tolist() == data.tolist()


def test_unnamed_free_dimensions_have_no_axis_name(tmp_path: Path) -> None:
    signature = opened(models.identity("FP32", dims=(None, "width", 3)), tmp_path).signature
    assert signature.inputs[0].shape == (None, None, 3)
    assert signature.inputs[0].axes == ("", "width", "")


def test_a_scalar_output_is_an_array(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["INPUT0"], ["OUTPUT0"], keepdims=0)
    pair = [models.tensor("INPUT0", "FP32", ("batch", 4))], [models.tensor("OUTPUT0", "FP32", ())]
    engine = opened(models.model([node], *pair), tmp_path)
    result = engine.run({"INPUT0": np.ones((2, 4), dtype=np.float32)}, {}, 2)["OUTPUT0"]
    assert isinstance(result, np.ndarray)
    assert result.shape == ()
    assert result == 8


def test_failures_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = opened(models.add_sub(), tmp_path)
    uneven = {f"INPUT{rows - 2}": np.zeros((rows, 16), dtype=np.int32) for rows in (2, 3)}
    with pytest.raises(EngineError):
        engine.run(uneven, {}, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [1, 1000])
def test_rows_are_pooled_each_by_itself(size: int, tmp_path: Path) -> None:
    engine = opened(models.big(size), tmp_path)
    inputs = np.arange(3 * size, dtype=np.float32).reshape(3, size)
    result = engine.run({"INPUT0": inputs}, {}, 3)["OUTPUT0"]
    np.testing.assert_allclose(result, inputs.mean(axis=1, keepdims=True), rtol=1e-5)


def test_a_model_that_mixes_rows_answers_differently_in_a_batch(tmp_path: Path) -> None:
    engine = opened(models.mixes_rows(), tmp_path)
    rows = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float32)
    together = engine.run({"INPUT0": rows}, {}, 2)["OUTPUT0"]
    alone = engine.run({"INPUT0": rows[:1]}, {}, 1)["OUTPUT0"]
    assert not np.array_equal(together[:1], alone)
