"""Sequences over real servers, in one process and in several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from inferd.oip.v2.inference_pb2 import (
    ModelConfigRequest,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelStreamInferResponse,
    ServerMetadataRequest,
)
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.oip.v2.model_config_pb2 import ModelSequenceBatching
from inferd.tensors import Array
from inferd_server.batching.inline import InlineLoop
from onnx import ModelProto, TensorProto, helper

from tests import models
from tests.server.inference.held import await_rows
from tests.server.serving import (
    CHANNEL,
    PATIENCE,
    FakeEngines,
    Running,
    arrays,
    infer_request,
    metrics_text,
    rows,
    running,
    running_fake,
    running_split,
    samples,
)

Start = Callable[..., AbstractContextManager[Running]]


CONTROLLED = """
sequence:
  idle_s: 90
  max_sequences: 64
  controls:
    - {kind: start, input: START}
    - {kind: end, input: END, false_true: [-1, 5]}
    - {kind: ready, input: READY}
    - {kind: correlation_id, input: CORRID}
"""


def controlled() -> ModelProto:
    """OUTPUT0 is START, END, READY side by side, FP32 [batch, 3], and ID what came as CORRID."""
    flags = [
        models.tensor("START", "FP32", ("batch", 1)),
        models.tensor("END", "INT32", ("batch", 1)),
        models.tensor("READY", "BOOL", ("batch", 1)),
    ]
    names = [flag.name for flag in flags]
    nodes = [
        *(helper.make_node("Cast", [name], [f"{name}_"], to=TensorProto.FLOAT) for name in names),
        helper.make_node("Concat", [f"{name}_" for name in names], ["FLAGS"], axis=1),
        # Every input has to be used.
        helper.make_node("Add", ["FLAGS", "INPUT0"], ["OUTPUT0"]),
        helper.make_node("Identity", ["CORRID"], ["ID"]),
    ]
    inputs = [
        models.tensor("INPUT0", "FP32", ("batch", 3)),
        models.tensor("CORRID", "INT64", ("batch", 1)),
    ]
    outputs = [
        models.tensor("OUTPUT0", "FP32", ("batch", 3)),
        models.tensor("ID", "INT64", ("batch", 1)),
    ]
    return models.model(nodes, [*inputs, *flags], outputs)


def step(
    value: float,
    key: int | str = 1,
    *,
    start: bool = False,
    end: bool = False,
    model: str = "summing",
) -> ModelInferRequest:
    request = infer_request(model, rows(value))
    kind = "string_param" if isinstance(key, str) else "uint64_param"
    setattr(request.parameters["sequence_id"], kind, key)
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    return request


def running_inline(folder: Path) -> AbstractContextManager[Running]:
    """Serve on the transport's thread where that can be."""
    return running(folder, inline=InlineLoop(time.monotonic), processes="inline")


STARTS = {"threads": running, "inline": running_inline, "split": running_split}


@pytest.fixture(scope="module", params=list(STARTS.values()), ids=list(STARTS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    start: Start = request.param
    folder = models.repository(
        tmp_path_factory.mktemp("models"),
        {
            "summing": models.summing(),
            "scaled": models.scale(2.0),
            "controlled": controlled(),
            "counting": models.counting("FP32"),
            "texts": models.counting("BYTES"),
            "several": models.summing(),
        },
        {
            "summing": models.SUMMING,
            "controlled": CONTROLLED,
            "counting": models.SUMMING,
            "texts": models.SUMMING,
            "several": f"{models.SUMMING}instances: 3\n",
        },
    )
    with start(folder) as server:
        yield server


def value(server: Running, request: ModelInferRequest) -> float:
    answer = arrays(server.infer(request))
    assert list(answer) == ["OUTPUT0"]
    return float(answer["OUTPUT0"][0, 0])


def reason(error: grpc.RpcError) -> str:
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


def test_callers_see_no_states(served: Running) -> None:
    metadata = served.stub.ModelMetadata(ModelMetadataRequest(name="summing"), timeout=PATIENCE)
    assert [tensor.name for tensor in (*metadata.inputs, *metadata.outputs)] == [
        "INPUT0",
        "OUTPUT0",
    ]


@pytest.mark.parametrize("key", [7, 2**64 - 1, "a conversation"])
def test_a_sequence_builds_on_what_came_before(served: Running, key: int | str) -> None:
    assert value(served, step(1.0, key, start=True)) == 1.0
    assert value(served, step(2.0, key)) == 3.0
    assert value(served, step(4.0, key, end=True)) == 7.0
    error = served.refused(step(8.0, key))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason(error) == "SEQUENCE_NOT_FOUND"
    assert "sequence_start" in str(error.details())


def test_open_sequences_are_counted(served: Running) -> None:
    name = 'inferd_open_sequences{model="summing",version="1"}'

    def count() -> float:
        return samples(served.metrics_port)[name]

    before = count()
    value(served, step(1.0, 901, start=True))
    value(served, step(1.0, 902, start=True))
    assert count() == before + 2
    value(served, step(1.0, 901, end=True))
    value(served, step(1.0, 902, end=True))
    assert count() == before


def test_many_sequences_over_many_connections_keep_to_themselves(served: Running) -> None:
    wrong: list[str] = []

    def live(number: int) -> None:
        # Each request over another connection, so that any front may get it.
        channels = [
            grpc.insecure_channel(f"127.0.0.1:{served.port}", [*CHANNEL, ("live", number * 4 + n)])
            for n in range(4)
        ]
        total = 0.0
        for index in range(40):
            total += number + index
            stub = GRPCInferenceServiceStub(channels[index % 4])
            request = step(number + index, f"live-{number}", start=not index, end=index == 39)
            found = arrays(stub.ModelInfer(request, timeout=PATIENCE))["OUTPUT0"][0, 0]
            if found != total:
                wrong.append(f"{number}: {found} and not {total}")
        for channel in channels:
            channel.close()

    threads = [threading.Thread(target=live, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * PATIENCE)
    assert wrong == []


def test_requests_of_a_stream_keep_their_order(served: Running) -> None:
    values = [float(number) for number in range(1, 101)]
    sent = [step(one, 99, start=one == 1.0, end=one == 100.0) for one in values]
    for request, one in zip(sent, values, strict=True):
        request.id = str(one)
    answers = list(served.stub.ModelStreamInfer(iter(sent), timeout=PATIENCE))
    assert not [answer.error_message for answer in answers if answer.error_message]
    found = {
        float(answer.infer_response.id): arrays(answer.infer_response)["OUTPUT0"][0, 0]
        for answer in answers
    }
    assert found == dict(zip(values, np.cumsum(values).tolist(), strict=True))


def test_steps_of_unlike_length_keep_their_order_beside_other_sequences(served: Running) -> None:
    lengths = [1 + (7 * number) % 5 for number in range(60)]
    wrong: list[object] = []

    def live(key: int) -> None:
        inputs = [np.zeros((1, length), np.float32) for length in lengths]
        sent = [long_step("counting", one, key, not place) for place, one in enumerate(inputs)]
        answers = served.stub.ModelStreamInfer(iter(sent), timeout=PATIENCE)
        found = [counted(answer) for answer in answers]
        if found != np.cumsum(lengths).tolist():
            wrong.append((key, found))

    threads = [threading.Thread(target=live, args=(key,)) for key in (31, 32, 33)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert wrong == []


def long_step(model: str, values: Array, key: int, start: bool) -> ModelInferRequest:
    request = infer_request(model, {"INPUT0": values})
    request.parameters["sequence_id"].int64_param = key
    request.parameters["sequence_start"].bool_param = start
    return request


def counted(answer: ModelStreamInferResponse) -> object:
    """Return the only number of an answer of a stream, or what went wrong."""
    if answer.error_message:
        return answer.error_message
    return float(arrays(answer.infer_response)["OUTPUT0"][0, 0])


def test_a_short_step_waits_for_a_long_text_before_it(served: Running) -> None:
    lengths = [30_000, 1, 25_000, 2, 3]
    texts = [np.full((1, length), b"x", np.object_) for length in lengths]
    sent = [long_step("texts", text, 41, not place) for place, text in enumerate(texts)]
    answers = served.stub.ModelStreamInfer(iter(sent), timeout=PATIENCE)
    assert [counted(answer) for answer in answers] == np.cumsum(lengths).tolist()


def test_instances_of_a_model_share_its_sequences(served: Running) -> None:
    values = [float(number) for number in range(1, 61)]
    calls = [
        (key, served.stub.ModelStreamInfer(iter(several(key, values)), timeout=PATIENCE))
        for key in range(51, 57)
    ]
    sums = np.cumsum(values)
    for key, answers in calls:
        assert [counted(answer) for answer in answers] == (key * sums).tolist()


def several(key: int, values: Sequence[float]) -> list[ModelInferRequest]:
    """Return the steps of a sequence, of values times its key."""
    return [step(key * one, key, start=one == values[0], model="several") for one in values]


@pytest.mark.parametrize("key", [7, -7, -(2**63), 2**63 - 1])
def test_a_model_is_told_where_in_its_sequence_a_request_is(served: Running, key: int) -> None:
    def told(**flags: bool) -> tuple[list[float], int]:
        request = infer_request("controlled", {"INPUT0": np.zeros((1, 3), np.float32)})
        request.parameters["sequence_id"].int64_param = key
        for name, flag in flags.items():
            request.parameters[f"sequence_{name}"].bool_param = flag
        found = arrays(served.infer(request))
        return found["OUTPUT0"][0].tolist(), int(found["ID"][0, 0])

    assert told(start=True) == ([1.0, -1.0, 1.0], key)
    assert told() == ([0.0, -1.0, 1.0], key)
    assert told(end=True) == ([0.0, 5.0, 1.0], key)


def test_a_negative_id_is_one_modulo_2_to_the_64(served: Running) -> None:
    request = step(1.0, start=True)
    request.parameters["sequence_id"].int64_param = -1
    assert value(served, request) == 1.0
    assert value(served, step(2.0, 2**64 - 1, end=True)) == 3.0


def test_the_configuration_tells_how_sequences_are_batched(served: Running) -> None:
    def batching(model: str) -> ModelSequenceBatching:
        request = ModelConfigRequest(name=model)
        config = served.stub.ModelConfig(request, timeout=PATIENCE).config
        assert config.WhichOneof("scheduling_choice") == "sequence_batching"
        return config.sequence_batching

    summing = batching("summing")
    assert summing.max_sequence_idle_microseconds == 60_000_000
    assert [(s.input_name, s.output_name) for s in summing.state] == [("SUM_IN", "SUM_OUT")]
    assert summing.oldest.max_candidate_sequences == 64
    controlled = batching("controlled")
    assert controlled.max_sequence_idle_microseconds == 90_000_000
    kinds = {c.name: c.control[0].kind for c in controlled.control_input}
    assert kinds == {"START": 0, "READY": 1, "END": 2, "CORRID": 3}
    ends = {c.name: list(c.control[0].int32_false_true) for c in controlled.control_input}
    assert (ends["END"], ends["CORRID"]) == ([-1, 5], [])


def test_the_metadata_names_sequences_and_the_schedule_policy(served: Running) -> None:
    answer = served.stub.ServerMetadata(ServerMetadataRequest(), timeout=PATIENCE)
    assert {"sequence", "schedule_policy"} <= set(answer.extensions)


def two_rows() -> ModelInferRequest:
    request = infer_request("summing", rows(1.0, 2.0))
    request.parameters["sequence_id"].int64_param = 5
    return request


def test_a_model_without_sequences_passes_over_their_parameters(served: Running) -> None:
    request = step(3.0, 5)
    request.model_name = "scaled"
    assert value(served, request) == 6.0
    assert value(served, request) == 6.0


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda: infer_request("summing", rows(1.0)), "sequence_id is missing"),
        (lambda: step(1.0, 0), "sequence_id is missing"),
        (two_rows, "has 2 rows; a request of a sequence has one"),
    ],
)
def test_what_cannot_be_a_step_is_refused(
    served: Running, request_of: Callable[[], ModelInferRequest], words: str
) -> None:
    error = served.refused(request_of())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in str(error.details())


def test_no_more_sequences_open_than_may(served: Running) -> None:
    for key in range(1000, 1064):
        served.stub.ModelInfer.future(step(1.0, key, start=True), timeout=PATIENCE).exception()
    error = served.refused(step(1.0, 2000, start=True))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(error) == "TOO_MANY_SEQUENCES"
    for key in range(1000, 1064):
        served.stub.ModelInfer.future(step(1.0, key, end=True), timeout=PATIENCE).exception()
    assert value(served, step(1.0, 2000, start=True, end=True)) == 1.0


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_step_that_ends_while_it_waits_ends_the_sequence(tmp_path: Path, how: str) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/model.yaml").write_text("sequence: {}\n")
    with running_fake(tmp_path, FakeEngines()) as (server, engine):

        def send(
            ident: float, *, start: bool = False, key: int = 1, timeout: int = 0
        ) -> grpc.Future:
            request = step(ident, key, start=start)
            request.model_name = "fake"
            if timeout:
                request.parameters["timeout"].int64_param = timeout
            return server.stub.ModelInfer.future(request, timeout=PATIENCE)

        send(1.0, start=True).result(PATIENCE)
        engine.hold()
        engine.running.clear()
        busy = send(5.0, start=True, key=2)
        assert engine.running.wait(PATIENCE)
        queue = server.server.repository.resolve("fake", "").queue
        if how == "cancelled":
            gone = send(2.0)
            await_rows(server, lambda: queue.rows == 1)
            gone.cancel()
            await_rows(server, lambda: next(iter(queue._levels[0].values())).cancelled)
        else:
            late = send(2.0, timeout=400_000)
            assert late.exception(PATIENCE).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        engine.release()
        busy.result(PATIENCE)
        assert send(3.0).exception(PATIENCE).code() is grpc.StatusCode.NOT_FOUND
        assert send(4.0, start=True).result(PATIENCE)


def test_models_with_sequences_stay_ready_though_nobody_tries_them(tmp_path: Path) -> None:
    folder = models.repository(tmp_path, {"summing": models.summing()}, {"summing": models.SUMMING})
    with running(folder) as server:
        assert server.server is not None
        server.server.endpoint.checks.round(PATIENCE)
        assert server.server.ready
        assert "inferd_canary_runs_total" not in metrics_text(server.metrics_port)
