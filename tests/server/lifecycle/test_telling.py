"""What is told of models that cannot be served as their owner hopes: in every arrangement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_client import Client
from inferd_client.cli import main
from inferd_client.errors import InvalidInput
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.engines.test_onnx_kinds import ort_file
from tests.engines.test_onnx_outputs import classifier
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.lifecycle.test_verdicts import ARRANGEMENTS, choosy
from tests.server.models.test_batchable import pool

ML = "ai.onnx.ml"
ROWS = ("batch", 4)


def by_torch(proto: ModelProto) -> ModelProto:
    proto.producer_name = "pytorch"
    return proto


def tempered() -> ModelProto:
    """x FP32 [batch, 4] divided by temperature, one for all."""
    given = [models.tensor("x", "FP32", ROWS), models.tensor("temperature", "FP32", ())]
    node = helper.make_node("Div", ["x", "temperature"], ["y"])
    return models.model([node], given, [models.tensor("y", "FP32", ROWS)])


def layered_state() -> ModelProto:
    """The state of two layers, FP32 [2, batch, 8], as recurrent networks have it."""
    ends = [models.tensor(name, "FP32", (2, "batch", 8)) for name in ("h", "next")]
    return models.model([helper.make_node("Neg", ["h"], ["next"])], ends[:1], ends[1:])


def layered_output() -> ModelProto:
    """x FP32 [batch, 8] is the state of two layers, FP32 [2, batch, 8]."""
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["one"]),
        helper.make_node("Concat", ["one", "one"], ["state"], axis=0),
    ]
    given, made = ("x", ("batch", 8)), ("state", (2, "batch", 8))
    ends = [models.tensor(name, "FP32", dims) for name, dims in (given, made)]
    return models.model(nodes, ends[:1], ends[1:], [axes])


def anchored() -> ModelProto:
    """y FP32 [batch, 4], beside anchors [100, 4] that are the same whatever comes in."""
    anchors = numpy_helper.from_array(np.ones((100, 4), np.float32), "weight")
    nodes = [
        helper.make_node("Neg", ["x"], ["y"]),
        helper.make_node("Identity", ["weight"], ["anchors"]),
    ]
    made = [models.tensor("y", "FP32", ROWS), models.tensor("anchors", "FP32", (100, 4))]
    return models.model(nodes, [models.tensor("x", "FP32", ROWS)], made, [anchors])


def three_scores() -> ModelProto:
    """Three scores a row, by an operator whose shapes nobody infers, declared as one."""
    weights = {"coefficients": [0.5] * 12, "intercepts": [0.0] * 3, "targets": 3}
    node = helper.make_node("LinearRegressor", ["x"], ["y"], domain=ML, **weights)
    ends = models.tensor("x", "FP32", ROWS), models.tensor("y", "FP32", ("batch", 1))
    return with_ml(helper.make_graph([node], "test", ends[:1], ends[1:]))


def hidden_classifier() -> ModelProto:
    """A classifier with a ZipMap, behind an operator whose shapes nobody infers."""
    proto = classifier({"classlabels_int64s": [3, 7]})
    scaler = helper.make_node("Scaler", ["x"], ["sum"], domain=ML, offset=[0.0], scale=[2.0])
    proto.graph.node[1].CopyFrom(scaler)
    return proto


def with_ml(graph: Any) -> ModelProto:
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)


SERVED = {
    "fixed": by_torch(models.no_batch()),
    "tempered": tempered(),
    "layers": layered_state(),
    "layered": layered_output(),
    "anchored": anchored(),
    "scores": three_scores(),
    "classes": hidden_classifier(),
    "choosy": choosy(),
    "untried": pool(300),
}
ALONE = {
    "fixed": (
        "input 'INPUT0' has shape [3, 4]",
        'dynamic_shapes={"INPUT0": {0: Dim("batch")}}',
        'dynamic_axes={"INPUT0": {0: "batch"}, "OUTPUT0": {0: "batch"}}',
    ),
    "tempered": ("input 'temperature' has shape []", "one for each row, of shape [-1, 1]"),
    "layers": ("input 'h' has shape [2, -1, 8]", "[-1, 2, 8] (PyTorch: h.movedim(1, 0))"),
    "layered": (
        "output 'state' has shape [2, 1, 8] for 1 row",
        "[-1, 2, 8] (PyTorch: state.movedim(1, 0))",
    ),
    "anchored": (
        "output 'anchors' has shape [100, 4] for 1 row",
        "leave it out of the exported model",
    ),
    "untried": (
        "rows could not be tried together: ",
        "max_batch_size: 32 in model.yaml",
        "warm_up: rows.npz",
    ),
}
"""Models whose requests share no runs: what is said of each."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server, and what it has written until it was ready."""

    address: str
    client: Client
    log: list[dict[str, Any]]


@pytest.fixture(scope="module", params=ARRANGEMENTS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = models.repository(tmp_path_factory.mktemp("told"), SERVED)
    (folder / "compiled/1").mkdir(parents=True)
    ort_file(models.scale(2.0), folder / "compiled/1/model.ort")
    with ready_process(folder, "--processes", request.param) as (process, where):
        address = f"127.0.0.1:{where['grpc_port']}"
        with Client(address) as client:
            yield Served(address, client, [json.loads(line) for line in process.lines])


@pytest.mark.parametrize("name", ALONE)
def test_a_model_whose_requests_share_no_runs_says_where_and_what_to_do(
    served: Served, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (status,) = [model for model in served.client.status().models if model.name == name]
    assert (status.state, status.max_batch_size) == ("READY", 0)
    for part in ALONE[name]:
        assert part in status.batch_reason
    (line,) = [
        line
        for line in served.log
        if line["message"] == "requests share no runs" and line["model"] == name
    ]
    assert (line["level"], line["why"]) == ("WARNING", status.batch_reason)
    assert main(["models", "--url", served.address]) == 0
    assert status.batch_reason in capsys.readouterr().out


def test_a_model_that_takes_no_trial_values_has_a_reason_in_the_index_and_in_the_table(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    (state,) = [model for model in served.client.models() if model.name == "choosy"]
    assert state.reason.startswith("a run on zeros failed: ")
    assert main(["models", "--url", served.address]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("choosy")]
    assert state.reason in row


def test_an_output_is_described_as_it_comes_and_a_wrong_declaration_is_told(
    served: Served,
) -> None:
    (output,) = served.client.metadata("scores").outputs
    assert output.shape == (None, None)
    lines = [line for line in served.log if "not as the model declares" in line["message"]]
    assert [line["model"] for line in lines] == ["scores"]
    assert lines[0]["why"].startswith("output 'y' is declared as [-1, 1] and came as [1, 3]")
    assert served.client.infer("scores", x=[[1, 2, 3, 4]])["y"].shape == (1, 3)


def test_what_was_a_zipmap_is_described_with_a_column_for_each_class(served: Served) -> None:
    outputs = {output.name: output.shape for output in served.client.metadata("classes").outputs}
    assert outputs == {"label": (None,), "probabilities": (None, 2)}


def test_too_many_rows_are_refused_with_what_to_do(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.ones((40, 4), np.float32)
    with pytest.raises(InvalidInput) as refused:
        served.client.infer("scores", x=rows)
    said = str(refused.value)
    assert "the batch of 40 rows is above the model's maximum of 32; send it in parts" in said
    assert "split=True" in said
    assert "--split" in said
    assert "max_batch_size: 40 in model.yaml" in said
    assert served.client.infer("scores", x=rows, split=True)["y"].shape == (40, 3)


def test_the_name_of_the_models_file_is_told(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        ask = GRPCInferenceServiceStub(channel).ModelConfig
        for name, file in {"compiled": "model.ort", "fixed": "model.onnx"}.items():
            answer = ask(oip.ModelConfigRequest(name=name), timeout=PATIENCE)
            assert answer.config.default_model_filename == file
