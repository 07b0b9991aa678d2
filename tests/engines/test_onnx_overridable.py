"""Inputs with a value of their own: of every type, and which are taken for weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd.tensors import DATATYPES
from inferd_engines.delegate import Delegate
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import OnnxEngine, open_onnx
from inferd_engines.onnx_overridable import MOST
from onnx import ModelProto, helper

from tests import models
from tests.engines.test_onnx_kinds import ort_file


def with_own(datatype: str, values: list[Any]) -> ModelProto:
    """OWN, of these values unless it is given, is OUTPUT0; INPUT0 is for nothing."""
    kind, dims = models.ELEMENT_TYPES[datatype], (len(values),)
    own = helper.make_tensor("OWN", kind, dims, values)
    node = helper.make_node("Identity", ["OWN"], ["OUTPUT0"])
    given = [models.tensor("INPUT0", "FP32", ("batch",)), models.tensor("OWN", datatype, dims)]
    return models.model([node], given, [models.tensor("OUTPUT0", datatype, dims)], [own])


def opened(proto: ModelProto, folder: Path) -> OnnxEngine:
    return open_onnx(models.save(proto, folder / "model.onnx"), EngineOptions())


ROW = {"INPUT0": np.zeros(1, np.float32)}
NUMBERS = ["FP32", "FP64", "FP16", "BF16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL"]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_a_value_of_every_type_is_known_and_can_be_given(datatype: str, tmp_path: Path) -> None:
    engine = opened(with_own(datatype, [0, 1]), tmp_path)
    assert [tensor.name for tensor in engine.signature.inputs] == ["INPUT0"]
    (own,) = engine.overridable
    dtype = DATATYPES[datatype]
    assert (own.name, own.dtype, own.shape, own.shared) == ("OWN", dtype, (2,), True)
    assert own.default == np.array([0, 1], dtype).tobytes()
    assert engine.run(ROW, {}, 1)["OUTPUT0"].astype(int).tolist() == [0, 1]
    given = {**ROW, "OWN": np.array([1, 1], dtype)}
    assert engine.run(given, {}, 1)["OUTPUT0"].astype(int).tolist() == [1, 1]
    assert engine.run(ROW, {}, 1)["OUTPUT0"].astype(int).tolist() == [0, 1]
    assert Delegate(engine).overridable == engine.overridable


def test_a_value_of_another_type_is_refused(tmp_path: Path) -> None:
    engine = opened(with_own("FP32", [0, 1]), tmp_path)
    with pytest.raises(EngineError, match="input 'OWN' is float64 and must be float32"):
        engine.run({**ROW, "OWN": np.zeros(2)}, {}, 1)


def test_text_and_large_values_are_left_as_they_are(tmp_path: Path) -> None:
    for number, proto in enumerate((with_own("BYTES", ["a"]), with_own("FP32", [1.0] * 65))):
        engine = opened(proto, tmp_path / str(number))
        assert engine.overridable == ()
        assert "OUTPUT0" in engine.run(ROW, {}, 1)


def test_values_that_cannot_be_read_are_left_as_they_are(tmp_path: Path) -> None:
    compiled = ort_file(with_own("FP32", [0, 1]), tmp_path / "model.ort")
    engine = open_onnx(compiled, EngineOptions())
    assert engine.overridable == ()
    assert engine.run(ROW, {}, 1)["OUTPUT0"].tolist() == [0, 1]


def test_more_of_them_than_anybody_gives_are_weights(tmp_path: Path) -> None:
    proto = with_own("FP32", [1])
    for number in range(MOST):
        name = f"more{number}"
        proto.graph.input.append(models.tensor(name, "FP32", (1,)))
        proto.graph.initializer.append(helper.make_tensor(name, 1, (1,), [1]))
    assert opened(proto, tmp_path).overridable == ()
