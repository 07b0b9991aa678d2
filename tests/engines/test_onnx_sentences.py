"""A model that cannot be loaded is refused with what lies there, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_errors import load_failure
from onnx import ModelProto, helper

from tests import models


def refusal(folder: Path, content: bytes | None = None) -> str:
    """Return the sentence for a version whose model file has this content, or is not there."""
    path = folder / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as refused:
        open_onnx(path, EngineOptions())
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet.onnx", "there is resnet.onnx: rename it to model.onnx"),
        ("bert.ort", "there is bert.ort: rename it to model.ort"),
        ("model.pt", "there is model.pt, which is PyTorch's: export it to ONNX"),
        ("pipeline.pkl", "there is pipeline.pkl, which is a Python object: export it to ONNX"),
        ("model.joblib", "docs/exporting.md"),
        ("model.keras", "there is model.keras, which is TensorFlow's: export it to ONNX"),
        ("model.plan", "a plan of TensorRT: give the ONNX file that it was built from"),
        ("model.safetensors", "weights without a model"),
        ("notes.txt", "the folder holds notes.txt: an ONNX file of that name was expected"),
        (".hidden", "the folder holds .hidden"),
    ],
)
def test_what_lies_in_the_place_of_a_model_is_named_with_what_to_do(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    assert said in refusal(tmp_path)


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "the folder is empty" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "run git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "PyTorch's or Keras', whatever its name: export it to ONNX"),
        (b"\x80\x05\x95" + bytes(40), "a Python object, whatever its name: export it to ONNX"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "TensorFlow's or Keras'"),
    ],
)
def test_a_file_that_is_only_called_a_model_is_recognised(
    content: bytes, said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path, content)


def test_weights_under_another_name_are_asked_for_by_the_one_they_had(tmp_path: Path) -> None:
    path = tmp_path / "resnet.onnx"
    onnx.save(
        models.no_batch(),
        path,
        save_as_external_data=True,
        location="resnet.onnx.data",
        size_threshold=0,
    )
    path.rename(tmp_path / "model.onnx")
    (tmp_path / "resnet.onnx.data").rename(tmp_path / "model.onnx.data")
    said = refusal(tmp_path)
    assert "keeps its weights in resnet.onnx.data, which is not beside it" in said
    assert "the folder holds model.onnx, model.onnx.data" in said


def one_node(operator: str, datatype: str, **attributes: object) -> ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    ends = [[models.tensor(name, datatype, ("n",))] for name in "xy"]
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid("ai.onnx.contrib", 1)]
    graph = helper.make_graph([node], "test", *ends)
    return helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)


def test_a_type_that_no_kernel_takes_names_the_operator_and_another_type(tmp_path: Path) -> None:
    said = refusal(tmp_path, one_node("Softmax", "BF16").SerializeToString())
    assert "bfloat16 is a type that few operators take: export the model in float32" in said


@pytest.mark.parametrize(
    "proto",
    [one_node("Nowhere", "FP32"), one_node("Nowhere", "FP32", domain="ai.onnx.contrib")],
    ids=["standard", "custom"],
)
def test_an_operator_that_is_not_known_points_to_custom_ops(
    proto: ModelProto, tmp_path: Path
) -> None:
    said = refusal(tmp_path, proto.SerializeToString())
    assert "Nowhere: name the library that brings it in custom_ops of model.yaml" in said


def test_a_locale_that_is_missing_comes_with_both_cures(tmp_path: Path) -> None:
    proto = one_node("StringNormalizer", "BYTES", case_change_action="LOWER", locale="xx_YY")
    said = refusal(tmp_path, proto.SerializeToString())
    assert "needs the locale xx_YY, which this machine does not have: install it" in said
    assert "localedef -i xx_YY -f UTF-8 xx_YY" in said
    assert "options={TfidfVectorizer: {'locale': 'C'}}" in said


def test_what_nothing_is_known_of_keeps_the_words_of_the_runtime() -> None:
    said = load_failure(Path("m/1/model.onnx"), RuntimeError("such a thing"))
    assert said == "ONNX Runtime cannot load m/1/model.onnx: such a thing"


def test_a_folder_or_a_dead_link_in_the_place_of_the_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "1" / "model.onnx").mkdir(parents=True)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "model.onnx").symlink_to("../blobs/gone")
    (tmp_path / "3" / "other.onnx").mkdir(parents=True)
    for version, said in [
        ("1", "model.onnx is a folder: the ONNX file itself was expected there"),
        ("2", "model.onnx is a link to ../blobs/gone, which is no file"),
        ("3", "the folder holds other.onnx: an ONNX file of that name was expected"),
    ]:
        assert said in refusal(tmp_path / version)
