"""Only models whose work no value can change are called steady."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_file import is_steady
from onnx import ModelProto, TensorProto, helper

from tests import models


def branching() -> ModelProto:
    """INPUT0 BOOL [] chooses between two constants."""

    def branch(name: str, value: float) -> object:
        constant = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
        node = helper.make_node("Constant", [], [name], value=constant)
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        return helper.make_graph([node], name, [], [output])

    node = helper.make_node(
        "If", ["INPUT0"], ["OUTPUT0"], then_branch=branch("a", 1), else_branch=branch("b", 2)
    )
    inputs, outputs = (
        [models.tensor("INPUT0", "BOOL", ())],
        [models.tensor("OUTPUT0", "FP32", (1,))],
    )
    return models.model([node], inputs, outputs)


@pytest.mark.parametrize(
    ("model", "steady"), [(models.add_sub(), True), (models.big(8), True), (branching(), False)]
)
def test_control_flow_makes_a_model_unsteady(
    tmp_path: Path, model: ModelProto, steady: bool
) -> None:
    path = models.save(model, tmp_path / "model.onnx")
    assert is_steady(path.read_bytes()) is steady
    engine = open_onnx(path, EngineOptions())
    assert engine.steady is steady
    engine.close()
