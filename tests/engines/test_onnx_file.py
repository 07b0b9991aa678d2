"""Operators and names in a model file are found without a search of its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd_engines import onnx_file
from inferd_engines.onnx_file import external_names, find, has_operator, is_steady, outline
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests import models

LOOP = b"\x22\x04Loop"
"""How a node says that it is one."""
WEIGHTS = np.frombuffer(LOOP * 50_000, np.uint8)


def weights(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(WEIGHTS, name)


def elsewhere(name: str) -> TensorProto:
    """A tensor whose elements are in a file."""
    found = TensorProto(name="e", data_type=TensorProto.FLOAT, dims=[1])
    found.data_location = TensorProto.EXTERNAL
    found.external_data.add(key="location", value=name)
    return found


def graph(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = ()) -> GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(tensors))


def whole(inner: GraphProto) -> ModelProto:
    return helper.make_model(inner, ir_version=10)


def constant(tensor: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = ()) -> NodeProto:
    inner = graph(*nodes, tensors=tensors)
    return helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=graph())


def in_function(node: NodeProto) -> ModelProto:
    found = whole(graph())
    opset = [helper.make_opsetid("", 20)]
    found.functions.append(helper.make_function("own", "F", [], [], [node], opset))
    return found


def sparse() -> ModelProto:
    found = whole(graph())
    made = helper.make_sparse_tensor(weights(), numpy_helper.from_array(np.arange(1)), [9])
    found.graph.sparse_initializer.append(made)
    return found


PLACES: dict[str, Callable[[], ModelProto]] = {
    "initializer": lambda: whole(graph(tensors=(weights(),))),
    "constant": lambda: whole(graph(constant(weights()))),
    "branch": lambda: whole(graph(branch(constant(weights()), tensors=(weights(),)))),
    "function": lambda: in_function(constant(weights())),
    "sparse initializer": sparse,
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_not_searched_wherever_they_are(place: str) -> None:
    content = PLACES[place]().SerializeToString()
    assert has_operator(content, "Loop")
    assert not has_operator(outline(content), "Loop")
    assert len(outline(content)) < onnx_file.LONG


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_behind_weights_is_found(place: str) -> None:
    made = PLACES[place]()
    assert is_steady(made.SerializeToString()) is (place != "branch")
    made.graph.node.append(branch(helper.make_node("Scan", ["x"], ["y"]), tensors=(weights(),)))
    made.graph.node.append(constant(elsewhere("there.bin")))
    made.graph.initializer.extend([weights(), elsewhere("here.bin")])
    content = made.SerializeToString()
    assert has_operator(outline(content), "Scan")
    assert not is_steady(content)
    assert external_names(content) == {"there.bin", "here.bin"}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_of_a_file_that_is_damaged_nothing_but_elements_is_left_out(data: st.DataObject) -> None:
    made = PLACES["branch"]()
    made.graph.initializer.append(elsewhere("here.bin"))
    content = bytearray(made.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    # It neither fails nor finds what is not there.
    external_names(damaged)
    assert len(outline(damaged)) <= len(damaged)


def test_a_model_nested_beyond_reason_is_searched_whole() -> None:
    inner = LOOP * 2_000
    for _ in range(2_000):
        # An attribute's graph in a node in a graph.
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            inner = tag + length(len(inner)) + inner
    content = b"\x3a" + length(len(inner)) + inner
    assert outline(content) == content


def length(value: int) -> bytes:
    """Return a length as protobuf has it."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=4), st.integers(0, 20))
def test_a_search_in_steps_finds_the_first_place(content: bytes, text: bytes, at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "STEP", 5)
        assert find(content, text, at) == content.find(text, at)


def test_an_ort_file_is_searched_whole() -> None:
    content = b"\x18\0\0\0ORTM" + bytes(10_000) + b"\x04\0\0\0Loop\0"
    assert outline(content) == content
    assert not is_steady(content)


def test_a_small_model_is_searched_whole() -> None:
    content = models.identity("FP32").SerializeToString()
    assert outline(content) == content
