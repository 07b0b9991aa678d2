"""Inputs that have a value of their own: given or left out, alone and in company."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.tensors import Array
from inferd_server.batching.inline import InlineLoop
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.server.inference.test_shared_memory import SHM, place, register, unregister
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    running,
    running_split,
)

ROW = np.array([[0.1, 0.4, 0.6, 0.9]], np.float32)
DIMS = ("batch", 4)


def thresholded() -> ModelProto:
    """x FP32 [batch, 4] where it is above `threshold` (0.5), and else `rest` (four zeros)."""
    own = {"threshold": np.array(0.5, np.float32), "rest": np.zeros(4, np.float32)}
    nodes = [
        helper.make_node("Greater", ["x", "threshold"], ["above"]),
        helper.make_node("Where", ["above", "x", "rest"], ["y"]),
    ]
    given = [
        models.tensor("x", "FP32", DIMS),
        models.tensor("threshold", "FP32", ()),
        models.tensor("rest", "FP32", (4,)),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in own.items()]
    return models.model(nodes, given, [models.tensor("y", "FP32", DIMS)], weights)


def fixed(proto: ModelProto) -> ModelProto:
    """The same for two rows and no others."""
    for end in (*proto.graph.input[:1], *proto.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 2
    return proto


def weighted(size: int) -> ModelProto:
    """A layer whose weight is among the inputs, as old exporters write all of them."""
    weight = numpy_helper.from_array(np.ones((4, size), np.float32), "w")
    given = [models.tensor("x", "FP32", DIMS), models.tensor("w", "FP32", (4, size))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return models.model([node], given, [models.tensor("y", "FP32", ("batch", size))], [weight])


def many_weights() -> ModelProto:
    """Nine small weights among the inputs."""
    names = [f"w{number}" for number in range(9)]
    sums = ["x", *(f"s{number}" for number in range(8)), "y"]
    nodes = [
        helper.make_node("Add", [sums[number], name], [sums[number + 1]])
        for number, name in enumerate(names)
    ]
    weights = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in names]
    given = [
        models.tensor("x", "FP32", DIMS),
        *(models.tensor(name, "FP32", (4,)) for name in names),
    ]
    return models.model(nodes, given, [models.tensor("y", "FP32", DIMS)], weights)


SERVED = {
    "threshold": thresholded(),
    "crowd": thresholded(),
    "kept": thresholded(),
    "fixed": fixed(thresholded()),
    "weighted": weighted(17),
    "many": many_weights(),
}
SETTINGS = {"crowd": "max_queue_delay_ms: 50\n", "kept": "response_cache: {ttl_s: 60}\n"}


@pytest.fixture(params=["threads", "inline", "split"], scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(tmp_path_factory.mktemp("optional"), SERVED, SETTINGS)
    if request.param == "split":
        with running_split(folder) as server:
            yield server
        return
    inline = InlineLoop(time.monotonic) if request.param == "inline" else None
    with running(folder, inline=inline, processes=request.param) as server:
        yield server


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def answer(server: Running, model: str, typed: bool = False, **inputs: Array) -> list[list[float]]:
    found = arrays(server.infer(infer_request(model, inputs, typed=typed)))["y"]
    return [[round(float(value), 3) for value in row] for row in found]


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("model", ["threshold", "kept"])
def test_an_input_that_is_left_out_has_the_models_own_value_each_time(
    served: Running, model: str, typed: bool
) -> None:
    own = [[0.0, 0.0, 0.6, 0.9]]
    # Requests that look like one that was admitted take a shorter way.
    for _ in range(3):
        assert answer(served, model, typed, x=ROW) == own
        assert answer(served, model, typed, x=ROW, threshold=scalar(0.8)) == [[0, 0, 0, 0.9]]
    rest = np.array([1, 2, 3, 4], np.float32)
    assert answer(served, model, typed, x=ROW, rest=rest) == [[1, 2, 0.6, 0.9]]
    assert answer(served, model, typed, x=np.repeat(ROW, 3, axis=0)) == own * 3


def test_a_value_may_lie_in_shared_memory(served: Running) -> None:
    segment = SHM / f"inferd-test-{uuid.uuid4().hex}"
    segment.write_bytes(scalar(0.8).tobytes())
    register(served, segment.name, f"/{segment.name}", byte_size=4)
    try:
        request = infer_request("threshold", {"x": np.repeat(ROW, 2, axis=0)})
        place(request.inputs.add(name="threshold", datatype="FP32"), segment.name, 4)
        # What is there is read each time.
        for value in (0.8, 0.5):
            segment.write_bytes(scalar(value).tobytes())
            found = arrays(served.infer(request))["y"]
            assert (found[1] > 0).tolist() == [False, False, value < 0.6, True]
    finally:
        unregister(served, segment.name)
        segment.unlink()


def test_a_value_holds_for_all_rows_of_its_request(served: Running) -> None:
    rows = np.concatenate([ROW, ROW * 0.5])
    expected = [[0, 0.4, 0.6, 0.9], [0, 0, 0.3, 0.45]]
    for name in ("threshold", "fixed"):
        assert answer(served, name, x=rows, threshold=scalar(0.25)) == expected
        assert answer(served, name, x=rows) == [[0, 0, 0.6, 0.9], [0, 0, 0, 0]]


def test_callers_with_values_of_their_own_share_no_run_and_others_do(served: Running) -> None:
    thresholds = [None, 0.2, None, 0.5, None, 0.8, None, 0.95]

    def ask(value: float | None) -> list[list[float]]:
        given = {} if value is None else {"threshold": scalar(value)}
        return answer(served, "crowd", x=ROW, **given)

    rounds, sizes = 0, {1: 0}
    with ThreadPoolExecutor(len(thresholds)) as pool:
        # How many arrive together is the machine's to say.
        while rounds < 20 and max(sizes) == 1:
            rounds += 1
            found = list(pool.map(ask, thresholds))
            for value, row in zip(thresholds, found, strict=True):
                least = 0.5 if value is None else value
                assert row == [[x if x > least else 0 for x in (0.1, 0.4, 0.6, 0.9)]]
            sizes = batch_sizes(served, "crowd")
    assert 1 < max(sizes) <= thresholds.count(None)
    assert sizes[1] >= rounds * 4


def batch_sizes(server: Running, model: str) -> dict[int, int]:
    """Return how often batches of each size ran."""
    request = oip.ModelStatisticsRequest(name=model)
    (found,) = server.stub.ModelStatistics(request, timeout=PATIENCE).model_stats
    return {batch.batch_size: batch.compute_infer.count for batch in found.batch_stats}


def test_it_is_described_as_an_input_and_marked_in_the_configuration(served: Running) -> None:
    request = oip.ModelMetadataRequest(name="threshold")
    metadata = served.stub.ModelMetadata(request, timeout=PATIENCE)
    assert {tensor.name: list(tensor.shape) for tensor in metadata.inputs} == {
        "x": [-1, 4],
        "threshold": [],
        "rest": [4],
    }
    asked = oip.ModelConfigRequest(name="threshold")
    config = served.stub.ModelConfig(asked, timeout=PATIENCE).config
    assert config.max_batch_size == 32
    assert {tensor.name: (list(tensor.dims), tensor.optional) for tensor in config.input} == {
        "x": ([4], False),
        "threshold": ([], True),
        "rest": ([4], True),
    }


def test_one_that_does_not_fit_is_refused_by_its_name(served: Running) -> None:
    wrong = {
        "input 'threshold' has shape [2], 1 dimensions; 0 were expected: []": np.ones(
            2, np.float32
        ),
        "input 'threshold' has datatype 'FP64'; FP32 was expected": np.array(0.5),
    }
    for said, value in wrong.items():
        error = served.refused(infer_request("threshold", {"x": ROW, "threshold": value}))
        assert error.details() == said
    error = served.refused(infer_request("threshold", {"x": ROW, "limit": scalar(1)}))
    assert "threshold (FP32 [], optional)" in error.details()


@pytest.mark.parametrize("name", ["weighted", "many"])
def test_weights_among_the_inputs_are_no_inputs(served: Running, name: str) -> None:
    metadata = served.stub.ModelMetadata(oip.ModelMetadataRequest(name=name), timeout=PATIENCE)
    assert [tensor.name for tensor in metadata.inputs] == ["x"]
    assert answer(served, name, x=ROW)
