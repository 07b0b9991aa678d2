"""BYTES of any kind pass through models that move or compare them; those that read text say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import OnnxEngine, open_onnx
from inferd_engines.onnx_run import STAND_INS, bytes_of, text_of
from onnx import ModelProto, helper

from tests import models

IMAGE = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\xc3"
LIKE_TEXT = [IMAGE, b"", b"plain", "\u00e9".encode(), b"\xc3", "\U0010ffd8\U0010ff00".encode()]


def opened(proto: ModelProto, folder: Path) -> OnnxEngine:
    return open_onnx(models.save(proto, folder / "model.onnx"), EngineOptions())


def elements(*values: bytes) -> np.ndarray:
    array = np.empty((1, len(values)), dtype=object)
    array[0] = values
    return array


def reading(operator: str, *, domain: str = "", **attributes: object) -> ModelProto:
    """A model whose only node looks into INPUT0 BYTES [batch, 2]."""
    node = helper.make_node(operator, ["INPUT0"], ["OUTPUT0"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "test",
        [models.tensor("INPUT0", "BYTES", ("n",))],
        [models.tensor("OUTPUT0", "BYTES", ("n",))],
    )
    return helper.make_model(
        graph, ir_version=models.IR_VERSION, opset_imports=[helper.make_opsetid("", models.OPSET)]
    )


def chosen() -> ModelProto:
    """OUTPUT0 BYTES is INPUT0 where INPUT1 equals INPUT0, and else INPUT1."""
    dims = ("batch", 6)
    nodes = [
        helper.make_node("Equal", ["INPUT0", "INPUT1"], ["equal"]),
        helper.make_node("Where", ["equal", "INPUT0", "INPUT1"], ["OUTPUT0"]),
    ]
    inputs = [models.tensor(name, "BYTES", dims) for name in ("INPUT0", "INPUT1")]
    return models.model(
        [*nodes, helper.make_node("Not", ["equal"], ["OUTPUT1"])],
        inputs,
        [models.tensor("OUTPUT0", "BYTES", dims), models.tensor("OUTPUT1", "BOOL", dims)],
    )


def test_bytes_that_are_no_text_come_back_as_they_went(tmp_path: Path) -> None:
    engine = opened(models.identity("BYTES", dims=("batch", 6)), tmp_path)
    assert not engine.signature.inputs[0].text
    given_ = elements(*LIKE_TEXT)
    assert engine.run({"INPUT0": given_}, {}, 1)["OUTPUT0"].tolist() == given_.tolist()


def test_bytes_that_are_no_text_are_equal_to_themselves_only(tmp_path: Path) -> None:
    engine = opened(chosen(), tmp_path)
    other = [*LIKE_TEXT[1:], LIKE_TEXT[0]]
    result = engine.run({"INPUT0": elements(*LIKE_TEXT), "INPUT1": elements(*other)}, {}, 1)
    assert result["OUTPUT0"].tolist() == [other]
    assert result["OUTPUT1"].all()
    same = engine.run({"INPUT0": elements(*other), "INPUT1": elements(*other)}, {}, 1)
    assert not same["OUTPUT1"].any()


@pytest.mark.parametrize(
    "proto",
    [
        reading("StringNormalizer", case_change_action="LOWER", locale="C"),
        reading("Unique", sorted=1),
    ],
    ids=["normalizer", "unique"],
)
def test_a_model_that_reads_text_refuses_what_is_none_and_says_where(
    proto: ModelProto, tmp_path: Path
) -> None:
    engine = opened(proto, tmp_path)
    assert engine.signature.inputs[0].text
    with pytest.raises(EngineError, match="'INPUT0': element 1 is not UTF-8 text") as refused:
        engine.run({"INPUT0": elements(b"fine", b"\xff")[0]}, {}, 1)
    assert refused.value.bad_input
    assert engine.run({"INPUT0": elements(b"A", b"b")[0]}, {}, 1)


@given(st.binary(max_size=12) | st.text(st.characters(codec="utf-8")).map(str.encode))
def test_any_bytes_survive_as_text_that_utf8_can_encode(data: bytes) -> None:
    text = text_of(data, strict=False)
    text.encode()
    assert bytes_of(text) == data


def test_text_that_looks_like_stand_ins_is_told_from_them() -> None:
    pretender = chr(STAND_INS.start + 0xFF)
    assert text_of(b"\xff", strict=False) == pretender
    assert text_of(pretender.encode(), strict=False) != pretender
