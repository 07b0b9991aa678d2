"""Values that a model cannot run on are the caller's to mend, who is told why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Array
from inferd_server.batching.inline import InlineLoop
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.server.lifecycle.process import ready_process
from tests.server.serving import PATIENCE, Running, arrays, infer_request, running, running_split

INVALID = grpc.StatusCode.INVALID_ARGUMENT
INTERNAL = grpc.StatusCode.INTERNAL
ML = "ai.onnx.ml"
QUIET = "warm_up: []\nmax_batch_size: 0\n"


def model(
    node: tuple[str, list[str], dict[str, object]],
    inputs: dict[str, tuple[str, models.Dims]],
    output: tuple[str, models.Dims],
    *,
    domain: str = "",
    weights: dict[str, Array] | None = None,
) -> ModelProto:
    """A model of one node, whose output is OUTPUT0."""
    operator, names, attributes = node
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["OUTPUT0"], domain=domain, **attributes)],
        "test",
        [models.tensor(name, *kind) for name, kind in inputs.items()],
        [models.tensor("OUTPUT0", *output)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", models.OPSET), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=imports)


TABLE = {"table": np.ones((10, 4), np.float32)}
SERVED = {
    "embedding": model(
        ("Gather", ["table", "ids"], {}),
        {"ids": ("INT64", ("batch", "length"))},
        ("FP32", ("batch", "length", 4)),
        weights=TABLE,
    ),
    "category": model(
        ("OneHotEncoder", ["word"], {"cats_strings": ["a", "b"], "zeros": 0}),
        {"word": ("BYTES", ("batch",))},
        ("FP32", ("batch", 2)),
        domain=ML,
    ),
    "binary": model(
        ("Binarizer", ["x"], {"threshold": 0.5}),
        {"x": ("FP32", ("batch", 2))},
        ("FP32", ("batch", 2)),
        domain=ML,
    ),
    "longest": model(
        ("ArgMax", ["x"], {"axis": 1}),
        {"x": ("FP32", ("batch", "length"))},
        ("INT64", ("batch", 1)),
    ),
    "unnamed": model(
        ("Add", ["ids", "mask"], {}),
        {"ids": ("FP32", ("batch", None)), "mask": ("FP32", ("batch", None))},
        ("FP32", ("batch", None)),
    ),
    "masked": model(
        ("Add", ["ids", "mask"], {}),
        {"ids": ("FP32", ("batch", "length")), "mask": ("FP32", ("batch", "length"))},
        ("FP32", ("batch", "length")),
    ),
    "strings": models.strings(),
    "joined": models.joined(),
    # Fails whatever it is given.
    "broken": model(
        ("ConstantOfShape", ["x"], {}), {"x": ("INT64", (3,))}, ("FP32", (None, None, None))
    ),
}
HUGE = np.full(3, 10**6)


def words(*texts: bytes) -> Array:
    return np.array(texts, dtype=object)


BAD: list[tuple[str, dict[str, Array], str]] = [
    ("embedding", {"ids": np.array([[50]])}, "idx=50 must be within the inclusive range [-10,9]"),
    ("category", {"word": words(b"z")}, "OneHotEncoder node: Unknown Category"),
    ("binary", {"x": np.array([[np.nan, 1]], np.float32)}, "is NaN"),
    ("longest", {"x": np.ones((1, 0), np.float32)}, "ArgMax node"),
    (
        "unnamed",
        {"ids": np.ones((1, 3), np.float32), "mask": np.ones((1, 4), np.float32)},
        "Add node: Attempting to broadcast",
    ),
]
GOOD: dict[str, dict[str, Array]] = {
    "embedding": {"ids": np.array([[5]])},
    "category": {"word": words(b"a")},
    "binary": {"x": np.ones((1, 2), np.float32)},
    "longest": {"x": np.ones((1, 2), np.float32)},
    "unnamed": {name: np.ones((1, 3), np.float32) for name in ("ids", "mask")},
}


def inline(folder: Path) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(time.monotonic), processes="inline")


ARRANGEMENTS: list[Callable[[Path], AbstractContextManager[Running]]] = [
    running,
    inline,
    running_split,
]


@pytest.fixture(scope="module", params=ARRANGEMENTS, ids=["threads", "inline", "split"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    models.repository(folder, SERVED | {"crowd": SERVED["binary"]}, settings())
    with request.param(folder) as server:
        yield server


def settings() -> dict[str, str]:
    """One model waits until eight rows are there; the others run request by request."""
    together = "max_batch_size: 8\npreferred_batch_size: 8\nmax_queue_delay_ms: 10000\n"
    return {**dict.fromkeys(SERVED, QUIET), "crowd": together}


def answered(server: Running, request: ModelInferRequest) -> dict[str, Array]:
    return arrays(server.infer(request))


@pytest.mark.parametrize(("name", "inputs", "said"), BAD, ids=[name for name, *_ in BAD])
def test_values_that_a_model_cannot_run_on_are_refused_with_the_engines_reason(
    served: Running, name: str, inputs: dict[str, Array], said: str
) -> None:
    error = served.refused(infer_request(name, inputs))
    assert error.code() is INVALID, error.details()
    assert said in error.details()
    assert "/onnxruntime" not in error.details()
    assert ".cc:" not in error.details()
    assert "OUTPUT0" in answered(served, infer_request(name, GOOD[name]))


def test_dimensions_of_one_name_must_be_equal_and_both_inputs_are_named(served: Running) -> None:
    unlike = {"ids": np.ones((1, 3), np.float32), "mask": np.ones((1, 4), np.float32)}
    error = served.refused(infer_request("masked", unlike))
    assert error.code() is INVALID
    assert error.details() == (
        "inputs disagree on dimension 'length', which must be equal: "
        "'ids' has 3 in dimension 1 of [1, 3], 'mask' has 4 in dimension 1 of [1, 4]"
    )
    longer = {"ids": np.ones((2, 3), np.float32), "mask": np.ones((1, 3), np.float32)}
    assert "dimension 'batch'" in served.refused(infer_request("masked", longer)).details()


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_bytes_that_are_no_text_are_refused_only_by_a_model_that_reads_them(
    served: Running, typed: bool
) -> None:
    image = {"INPUT0": np.array([[b"\xff\xd8\x00", b"text"]], dtype=object)}
    moved = answered(served, infer_request("strings", image, typed=typed))
    assert moved["OUTPUT0"].tolist() == image["INPUT0"].tolist()
    error = served.refused(infer_request("joined", image, typed=typed))
    assert (error.code(), error.details()) == (
        INVALID,
        "input 'INPUT0': element 0 is not UTF-8 text",
    )


def test_one_bad_row_of_eight_costs_its_neighbours_three_runs(served: Running) -> None:
    ask = served.stub.ModelInfer.future
    given = [np.full((1, 2), np.nan if number == 5 else number, np.float32) for number in range(8)]
    # Without deadlines, for which nobody waits before it is known what a run takes.
    sent = [ask(infer_request("crowd", {"x": row})) for row in given]
    refused = [call.exception(PATIENCE) is not None for call in sent]
    assert refused == [number == 5 for number in range(8)]
    request = oip.ModelStatisticsRequest(name="crowd")
    (found,) = served.stub.ModelStatistics(request, timeout=PATIENCE).model_stats
    assert (found.inference_count, found.execution_count) == (7, 3)
    assert {batch.batch_size for batch in found.batch_stats} == {4, 2, 1}


def test_a_failure_that_is_not_the_callers_stays_internal(served: Running) -> None:
    error = served.refused(infer_request("broken", {"x": HUGE}))
    assert error.code() is INTERNAL
    assert "log" in error.details()


@pytest.mark.parametrize("flags", [(), ("--processes", "split", "--fronts", "1")])
def test_lines_about_failed_runs_name_the_model_and_are_bounded(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    models.repository(tmp_path, {"embedding": SERVED["embedding"]}, {"embedding": QUIET})
    with ready_process(tmp_path, *flags) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for number in range(200):
                sent = infer_request("embedding", {"ids": np.array([[50]])}, ident=f"r{number}")
                with pytest.raises(grpc.RpcError):
                    call(sent.SerializeToString(), timeout=20)
        process.terminate()
        assert process.exit_code() == 0
        lines = [json.loads(line) for line in process.lines]
    failed = [line for line in lines if line["message"] == "a batch failed"]
    told = [line for line in lines if line["message"] == "a request failed"]
    assert {(line["model"], line["version"]) for line in (*failed, *told)} == {("embedding", 1)}
    assert told[0]["request"] == "r0"
    # A few in each while; how many of them a slow machine takes is not known.
    assert len(failed) < 100
    assert len(told) < 100
