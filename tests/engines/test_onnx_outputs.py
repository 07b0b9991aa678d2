"""Outputs that are no arrays are replaced by what says the same, or left out by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import OnnxEngine, open_onnx
from inferd_engines.onnx_zipmap import without_zipmap
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from tests import models

ML = "ai.onnx.ml"
ROW = {"x": np.array([[0.25, 0.75]], np.float32)}
BY_NUMBER = {"classlabels_int64s": [3, 7]}
BY_NAME = {"classlabels_strings": ["no", "yes"]}


def classifier(
    labels: dict[str, object], more: list[NodeProto] | None = None, *others: ValueInfoProto
) -> ModelProto:
    """A label, and `probabilities` FP32 [batch, 2] behind a ZipMap, as converters write them."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Add", ["x", "x"], ["sum"]),
        helper.make_node("ZipMap", ["sum"], ["probabilities"], domain=ML, **labels),
        *(more or []),
    ]
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(kind, value))
    outputs = [
        models.tensor("label", "INT64", ("batch",)),
        helper.make_value_info("probabilities", maps),
        *others,
    ]
    graph = helper.make_graph(nodes, "test", [models.tensor("x", "FP32", ("batch", 2))], outputs)
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)


def sequence(name: str) -> ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)


def opened(proto: ModelProto, folder: Path) -> OnnxEngine:
    return open_onnx(models.save(proto, folder / "model.onnx"), EngineOptions())


@pytest.mark.parametrize("labels", [BY_NUMBER, BY_NAME], ids=["numbers", "names"])
def test_a_zipmap_at_the_end_gives_way_to_its_input(
    labels: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = opened(classifier(labels), tmp_path)
    assert [tensor.name for tensor in engine.signature.outputs] == ["label", "probabilities"]
    assert engine.signature.outputs[1].shape == (None, 2)
    found = engine.run(ROW, {}, 1)
    assert found["probabilities"].tolist() == [[0.5, 1.5]]
    assert found["label"].tolist() == [1]
    (record,) = [one for one in caplog.records if "ZipMap" in one.message]
    assert vars(record)["output"] == "probabilities"
    assert vars(record)["columns"] == next(iter(labels.values()))


def test_what_is_no_array_is_left_out_by_name_beside_arrays(tmp_path: Path) -> None:
    more = [helper.make_node("SequenceConstruct", ["x", "x"], ["list"])]
    engine = opened(classifier(BY_NUMBER, more, sequence("list")), tmp_path)
    assert [tensor.name for tensor in engine.signature.outputs] == ["label", "probabilities"]
    assert "output 'list' is seq(tensor(float)), and only tensors can be served" in engine.reason
    assert engine.run(ROW, {}, 1).keys() == {"label", "probabilities"}
    buffer = np.empty((1, 2), np.float32)
    assert engine.run(ROW, {"probabilities": buffer}, 1)["probabilities"] is buffer


def test_a_model_of_sequences_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["list"])
    proto = models.model([node], [models.tensor("x", "FP32", ("n",))], [sequence("list")])
    with pytest.raises(EngineError, match="ConcatFromSequence"):
        opened(proto, tmp_path)


def test_a_zipmap_that_another_node_takes_stays(tmp_path: Path) -> None:
    more = [helper.make_node("SequenceLength", ["probabilities"], ["length"])]
    proto = classifier(BY_NUMBER, more, models.tensor("length", "INT64", ()))
    content = proto.SerializeToString()
    assert without_zipmap(content) == (content, ())


@pytest.mark.parametrize("kind", ["sequence", "map"])
def test_inputs_that_are_no_arrays_are_refused_with_what_to_do(kind: str, tmp_path: Path) -> None:
    if kind == "sequence":
        node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
        given = sequence("x")
    else:
        value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        given = helper.make_value_info("x", helper.make_map_type_proto(TensorProto.STRING, value))
        node = helper.make_node(
            "DictVectorizer", ["x"], ["y"], domain=ML, string_vocabulary=["a", "b"]
        )
    graph = helper.make_graph([node], "test", [given], [models.tensor("y", "FP32", None)])
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid(ML, 3)]
    proto = helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)
    with pytest.raises(EngineError, match=r"input 'x' is .*; export the model so that it takes"):
        opened(proto, tmp_path)


@pytest.mark.parametrize("content", [b"\x22\x06ZipMap", b"\x3a\x09\x0a\x07\x22\x06ZipMap"[:-1]])
def test_what_is_no_model_is_left_to_the_runtime(content: bytes) -> None:
    assert without_zipmap(content) == (content, ())
