"""Nodes that mix rows, found in the graphs of real files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from inferd_engines.batch_axis import Mixing, mixing_nodes
from inferd_engines.onnx_graph import read_model
from onnx import ModelProto, TensorProto, helper

from tests import mixing, models
from tests.mixing import ONE, ZERO, built, weight

PROVEN, LIKELY, POSSIBLE = Mixing.PROVEN, Mixing.LIKELY, Mixing.POSSIBLE
DEEP = ("batch", 2, 3)


def found(proto: ModelProto) -> list[tuple[Mixing, str]]:
    model = read_model(proto.SerializeToString())
    assert model is not None
    return [(node.mixing, node.operator) for node in mixing_nodes(model)]


def one(
    operator: str,
    *weights: TensorProto,
    dims: models.Dims = DEEP,
    given: str = "FP32",
    **options: Any,
) -> ModelProto:
    """X through one operator is Y; of which type and shape is not checked."""
    names = ["X", *(w.name for w in weights)]
    node = helper.make_node(operator, names, ["Y"], name="n", **options)
    return unchecked([node], dims, given, weights)


def unchecked(
    nodes: Any,
    dims: models.Dims = DEEP,
    given: str = "FP32",
    weights: Any = (),
    opset: int = models.OPSET,
) -> ModelProto:
    ends = [models.tensor("X", given, dims)], [models.tensor("Y", "FP32", ("rows",))]
    graph = helper.make_graph(nodes, "test", *ends, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(operator: str, inputs: str, outputs: str, **options: Any) -> Any:
    return helper.make_node(
        operator, inputs.split(), outputs.split(), name=outputs.split(maxsplit=1)[0], **options
    )


THIRD_LAST = weight("a", [-3], np.int64)
YES = helper.make_tensor("v", TensorProto.BOOL, [], [1])
AXIS0, AXIS1 = weight("axis", 0, np.int64), weight("axis", 1, np.int64)
MIXES: Mapping[str, tuple[Mixing, Callable[[], ModelProto]]] = {
    "reduction of everything": (LIKELY, lambda: one("ReduceMax")),
    "reduction over 0": (LIKELY, lambda: one("ReduceSum", ZERO)),
    "reduction over the last but two": (LIKELY, lambda: one("ReduceSum", THIRD_LAST)),
    "L2 norm over several": (LIKELY, lambda: one("ReduceL2", weight("a", [0, 2], np.int64))),
    "softmax over 0": (LIKELY, lambda: one("Softmax", axis=0)),
    "log of softmax over -3": (LIKELY, lambda: one("LogSoftmax", axis=-3)),
    "running sum": (LIKELY, lambda: one("CumSum", AXIS0)),
    "largest": (LIKELY, lambda: one("ArgMax", axis=0)),
    "largest, by default": (LIKELY, lambda: one("ArgMin")),
    "top k": (LIKELY, lambda: one("TopK", ONE, axis=0)),
    "norm": (LIKELY, lambda: one("LpNormalization", axis=0)),
    "layer norm of everything": (LIKELY, lambda: one("LayerNormalization", weight("s", 1), axis=0)),
    "mean and variance": (LIKELY, lambda: one("MeanVarianceNormalization", dims=("n", 1, 2, 3))),
    "batch norm": (PROVEN, mixing.test_time_norm),
    "dynamic quantisation": (PROVEN, mixing.dynamically_quantised),
    "non zero": (POSSIBLE, lambda: one("NonZero")),
    "unique": (POSSIBLE, lambda: one("Unique")),
    "unique rows": (POSSIBLE, lambda: one("Unique", axis=0)),
    "compressed": (POSSIBLE, lambda: one("Compress", weight("c", [True], np.bool_), axis=0)),
    "softmax of an old opset flattens": (
        LIKELY, lambda: unchecked([node("Softmax", "X", "Y", axis=0)], opset=11),
    ),
    "after a transpose": (
        LIKELY,
        lambda: unchecked(
            [node("Transpose", "X", "t", perm=[1, 0, 2]), node("Softmax", "t", "Y", axis=1)]
        ),
    ),
    "after layers": (
        LIKELY,
        lambda: unchecked(
            [
                node("MatMul", "X w", "a"), node("Add", "a b", "c"), node("Relu", "c", "d"),
                node("Unsqueeze", "d zero", "e"), node("ReduceMean", "e one", "Y"),
            ],
            weights=[weight("w", np.ones((3, 5))), weight("b", np.ones(5)), ZERO, ONE],
        ),
    ),
    "in a branch": (
        LIKELY,
        lambda: unchecked(
            [
                node("Constant", "", "yes", value=YES),
                node(
                    "If", "yes", "Y",
                    then_branch=branch(node("ReduceMax", "X", "t")),
                    else_branch=branch(node("Relu", "X", "e")),
                ),
            ]
        ),
    ),
    "in a loop, that may run for each row": (
        LIKELY,
        lambda: unchecked(
            [
                node(
                    "Scan", "X", "Y", num_scan_inputs=1,
                    body=branch(node("DynamicQuantizeLinear", "r", "q s p"), "r"),
                )
            ]
        ),
    ),
    "in a function": (PROVEN, lambda: with_function("DynamicQuantizeLinear")),
}  # fmt: skip
APART: Mapping[str, Callable[[], ModelProto]] = {
    "reduction over 1": lambda: one("ReduceSum", ONE),
    "reduction over the last": lambda: one("ReduceMean", weight("a", [-1], np.int64)),
    "reduction over nothing": lambda: one("ReduceMax", noop_with_empty_axes=1),
    "reduction over axes that are found while it runs": lambda: unchecked(
        [node("Shape", "X", "s"), node("ReduceMax", "X s", "Y")]
    ),
    "softmax over classes": lambda: one("Softmax"),
    "softmax of an old opset": lambda: unchecked([node("Softmax", "X", "Y")], opset=11),
    "layer norm": lambda: one("LayerNormalization", weight("s", 1)),
    "instance norm": lambda: one("InstanceNormalization", weight("s", 1), weight("b", 0)),
    "batch norm of a trained model": lambda: one(
        "BatchNormalization", *(weight(name, np.ones(2)) for name in "abcd")
    ),
    "running sum within rows": lambda: one("CumSum", AXIS1),
    "top k of each row": lambda: one("TopK", ONE),
    "the number of rows": lambda: unchecked([node("Shape", "X", "s"), node("ReduceMax", "s", "Y")]),
    "a weight": lambda: unchecked(
        [node("ReduceMax", "w", "m"), node("Add", "X m", "Y")], weights=[weight("w", [1, 2])]
    ),
    "static quantisation": lambda: unchecked(
        [node("QuantizeLinear", "X s", "q"), node("DequantizeLinear", "q s", "Y")],
        weights=[weight("s", 1)],
    ),
    "time first, as LSTMs have it": lambda: unchecked(
        [node("Transpose", "X", "t", perm=[1, 0, 2]), node("ReduceMax", "t zero", "Y")],
        weights=[ZERO],
    ),
    "after a reshape that may be anything": lambda: unchecked(
        [node("Reshape", "X s", "r"), node("ReduceMax", "r zero", "Y")],
        weights=[weight("s", [-1], np.int64), ZERO],
    ),
}  # fmt: skip


def branch(node: Any, given: str = "") -> Any:
    """A graph of one node, which sees the values around it."""
    inputs = [models.tensor(given, "FP32", DEEP[1:])] if given else []
    outputs = [models.tensor(name, "FP32", ("rows",)) for name in node.output]
    return helper.make_graph([node], "branch", inputs, outputs)


def with_function(operator: str) -> ModelProto:
    proto = unchecked([helper.make_node("Own", ["X"], ["Y"], domain="own")])
    body = [helper.make_node(operator, ["x"], ["q", "s", "p"], name="inner")]
    opsets = [helper.make_opsetid("", models.OPSET)]
    proto.functions.append(helper.make_function("own", "Own", ["x"], ["q"], body, opsets))
    return proto


@pytest.mark.parametrize("name", MIXES)
def test_a_node_that_mixes_rows_is_found(name: str) -> None:
    kind, make = MIXES[name]
    assert [mixing for mixing, _ in found(make())] == [kind]


@pytest.mark.parametrize("name", APART)
def test_a_node_that_leaves_rows_alone_is_not_accused(name: str) -> None:
    assert found(APART[name]()) == []


@pytest.mark.parametrize(("given", "whole"), [("INT64", True), ("FP32", False), ("BOOL", True)])
def test_it_is_known_whether_whole_numbers_led_to_a_node(given: str, whole: bool) -> None:
    cast = node("Cast", "X", "c", to=TensorProto.FLOAT)
    proto = unchecked([cast, node("ReduceMax", "c", "Y")], given=given)
    model = read_model(proto.SerializeToString())
    assert model is not None
    assert [found.whole for found in mixing_nodes(model)] == [whole]


def test_a_sentence_names_node_operator_and_what_it_does() -> None:
    model = read_model(one("ReduceMax").SerializeToString())
    assert model is not None
    (node,) = mixing_nodes(model)
    assert str(node) == "node 'n' (ReduceMax) reduces over the batch dimension"


def test_nothing_is_found_in_models_without_inputs() -> None:
    proto = built([("Relu", "X", "Y")])
    del proto.graph.input[:]
    assert found(proto) == []
