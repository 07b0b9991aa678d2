"""What is read from model files: numbers, categories, sizes; and nothing from what is no model."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_engines.onnx_graph import read_model
from inferd_engines.onnx_values import ModelFacts, read_facts
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests import mixing, models

SHIPPED = Path(__file__).parents[2] / "server/inferd_server/shipped_models/digits/1/model.onnx"


def facts_of(proto: ModelProto) -> ModelFacts:
    return read_facts(proto.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TensorProto.FLOAT, 2.5), (TensorProto.DOUBLE, 2.5), (TensorProto.FLOAT16, 2.5),
        (TensorProto.BFLOAT16, 2.5), (TensorProto.INT64, -7), (TensorProto.INT32, -7),
        (TensorProto.INT8, -7), (TensorProto.UINT8, 200), (TensorProto.UINT64, 7),
        (TensorProto.INT16, -7), (TensorProto.UINT32, 7),
    ],
)  # fmt: skip
@pytest.mark.parametrize("raw", [False, True])
def test_single_numbers_of_every_type_are_read(kind: int, value: float, raw: bool) -> None:
    plain = helper.make_tensor("c", kind, [1], [value])
    tensor = numpy_helper.from_array(numpy_helper.to_array(plain), "c") if raw else plain
    proto = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert facts_of(proto).constants == (float(value),)


def test_numbers_come_whole_and_small_first_and_from_everywhere() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value_int=50)], "inner", [],
        [models.tensor("c", "INT64", ())],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["a"], value_float=0.5),
        helper.make_node("Constant", [], ["b"], value=mixing.weight("v", 199, np.int64)),
        helper.make_node("If", ["X"], ["Y"], then_branch=inner, else_branch=inner),
    ]
    weights = [mixing.weight("m", -1e30), mixing.weight("n", np.nan), mixing.weight("z", [0, 1])]
    proto = helper.make_model(helper.make_graph(nodes, "g", [], [], weights))
    assert facts_of(proto).constants == (50.0, 199.0, 0.5)


def test_categories_are_known_by_input_and_column() -> None:
    columns = facts_of(mixing.known_columns()).categories
    assert columns == {"X": {0: (b"red", b"green"), 1: (b"small", b"large", b"huge")}}
    whole = facts_of(mixing.known_words()).categories
    assert whole == {"X": {None: (b"red", b"green", b"blue")}}


def test_sizes_of_weights_are_known() -> None:
    assert 30 in facts_of(mixing.thirty_features()).sizes


def test_the_graph_is_read_as_the_package_onnx_reads_it() -> None:
    model, known = read_model(SHIPPED.read_bytes()), onnx.load(SHIPPED)
    assert model is not None
    assert model.opset == known.opset_import[0].version
    assert [
        (node.name, node.operator, list(node.inputs), list(node.outputs))
        for node in model.graph.nodes
    ] == [
        (node.name, node.op_type, list(node.input), list(node.output)) for node in known.graph.node
    ]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in known.graph.initializer}
    assert {name: c.shape for name, c in model.graph.constants.items()} == shapes


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0b\x0b"]
)
def test_what_is_no_model_tells_nothing(content: bytes) -> None:
    assert read_facts(content) == ModelFacts()


def test_damaged_files_never_raise() -> None:
    whole, generator = bytearray(SHIPPED.read_bytes()[:4000]), random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randrange(1, 6)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        read_facts(bytes(damaged[: generator.randrange(1, len(damaged))]))
