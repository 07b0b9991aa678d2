"""ORT files and operators of other libraries are served like ONNX files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.model_files import ModelFiles
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_session import package_library
from onnx import ModelProto, helper
from onnxruntime import InferenceSession, SessionOptions

from tests import models
from tests.engines.test_onnx_steady import branching

TEXT = {"x": np.array([b"Abc"], dtype=object)}


def ort_file(proto: ModelProto, path: Path) -> Path:
    options = SessionOptions()
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return path


def lower() -> ModelProto:
    """x BYTES [n] in lower case is y, by an operator of onnxruntime-extensions."""
    node = helper.make_node("StringLower", ["x"], ["y"], domain="ai.onnx.contrib")
    ends = [[models.tensor(name, "BYTES", ("n",))] for name in "xy"]
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid("ai.onnx.contrib", 1)]
    graph = helper.make_graph([node], "test", *ends)
    return helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)


@pytest.mark.parametrize(
    ("proto", "steady"), [(models.add_sub(), True), (branching(), False)], ids=["add", "branches"]
)
def test_an_ort_file_is_served_like_the_model_it_was_made_of(
    proto: ModelProto, steady: bool, tmp_path: Path
) -> None:
    engine = open_onnx(ort_file(proto, tmp_path / "model.ort"), EngineOptions())
    original = open_onnx(models.save(proto, tmp_path / "model.onnx"), EngineOptions())
    assert engine.steady is original.steady is steady
    assert engine.signature == original.signature
    shapes = [[size or 1 for size in tensor.shape] for tensor in engine.signature.inputs]
    inputs = {
        tensor.name: np.ones(shape, tensor.dtype)
        for tensor, shape in zip(engine.signature.inputs, shapes, strict=True)
    }
    expected = original.run(inputs, {}, 1)
    for name, array in engine.run(inputs, {}, 1).items():
        np.testing.assert_array_equal(array, expected[name])


def test_operators_of_a_package_are_found_by_its_name(tmp_path: Path) -> None:
    path = models.save(lower(), tmp_path / "model.onnx")
    engine = open_onnx(path, EngineOptions(libraries=("onnxruntime-extensions",)))
    assert engine.run(TEXT, {}, 1)["y"].tolist() == [b"abc"]
    # What an operator of others does with text is not known here.
    assert engine.signature.inputs[0].text


def test_operators_of_a_library_do_not_depend_on_its_file_afterwards(tmp_path: Path) -> None:
    path = models.save(lower(), tmp_path / "1" / "model.onnx")
    library = tmp_path / "ops.so"
    library.write_bytes(Path(package_library("onnxruntime-extensions")).read_bytes())
    files = ModelFiles(path)
    engine = open_onnx(path, EngineOptions(libraries=(str(library),), files=files))
    before = files.digest()
    library.write_bytes(bytes(1000))
    assert engine.run(TEXT, {}, 1)["y"].tolist() == [b"abc"]
    files.drop()
    files.content()
    assert files.digest() != before


def test_the_package_of_operators_changes_nothing_for_later_processes() -> None:
    """Its import has protobuf run in Python there, which is slow."""
    code = (
        "import os; from inferd_engines.onnx_session import package_library\n"
        "before = dict(os.environ)\n"
        "package_library('onnxruntime-extensions')\n"
        "assert os.environ == before\n"
    )
    for environment in (
        os.environ,
        {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "upb"},
    ):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [("ops.so", "ops.so cannot be read: No such file"), ("numpy", "no package 'numpy'")],
)
def test_operators_that_are_not_there_are_said_to_be_missing(
    name: str, said: str, tmp_path: Path
) -> None:
    path = models.save(lower(), tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=said):
        open_onnx(path, EngineOptions(libraries=(str(tmp_path / name) if "." in name else name,)))


def test_a_library_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = models.save(lower(), tmp_path / "model.onnx")
    (tmp_path / "ops.so").write_bytes(b"no library")
    with pytest.raises(EngineError, match="custom_ops cannot be loaded"):
        open_onnx(path, EngineOptions(libraries=(str(tmp_path / "ops.so"),)))


def test_the_arena_can_be_left_out_and_nothing_else_said_of_it(tmp_path: Path) -> None:
    path = models.save(models.scale(2.0), tmp_path / "model.onnx")
    engine = open_onnx(path, EngineOptions(extra={"cpu_arena": "0"}))
    row = np.ones((1, 4), np.float32)
    assert engine.run({"INPUT0": row}, {}, 1)["OUTPUT0"].tolist() == [[2.0] * 4]
    with pytest.raises(EngineError, match="cpu_arena is 'off', and must be 0 or 1"):
        open_onnx(path, EngineOptions(extra={"cpu_arena": "off"}))
