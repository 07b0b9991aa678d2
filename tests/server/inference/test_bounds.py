"""What the bounds of all callers refuse is counted and logged, in every arrangement."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.inference.hostile import TOO_MANY_FIELDS, filled, part
from tests.server.lifecycle.process import Process, ready_process
from tests.server.serving import PATIENCE, arrays, failure, infer_request, metrics_text, rows

SERVICE = "/inference.GRPCInferenceService/"
INFER, STREAM, INDEX = (
    f"{SERVICE}{name}" for name in ("ModelInfer", "ModelStreamInfer", "RepositoryIndex")
)
ARRANGEMENTS = {
    "inline": ("inline",),
    "threads": ("threads",),
    "aio": ("threads", "--transport", "aio"),
    "split": ("split", "--fronts", "1"),
    "replicas": ("replicas", "--replicas", "1"),
}
LARGEST = 1 << 22
ROOM, WIDTH = 300_000, 50_000
PATIENT = "max_batch_size: 2\npreferred_batch_size: 2\nmax_queue_delay_ms: 60000\n"
"""A model that waits for a second row before it runs."""
Send: TypeAlias = Callable[..., None]


@dataclass
class Served:
    """A server in a process of its own."""

    process: Process
    channel: grpc.Channel
    metrics_port: int

    @property
    def stub(self) -> GRPCInferenceServiceStub:
        return GRPCInferenceServiceStub(self.channel)

    def metric(self, name: str) -> float:
        lines = metrics_text(self.metrics_port).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    def refused(self, reason: str) -> float:
        return self.metric(f'inferd_refused_calls_total{{reason="{reason}"}}')

    def await_metric(self, name: str, least: float, most: float = float("inf")) -> None:
        until = time.monotonic() + PATIENCE
        while not least <= self.metric(name) <= most:
            assert time.monotonic() < until


@pytest.fixture(params=ARRANGEMENTS, scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    wide = models.identity("FP32", dims=("batch", WIDTH))
    folder = models.repository(
        tmp_path_factory.mktemp(request.param),
        {"patient": models.scale(2.0), "wide": wide},
        {"patient": PATIENT},
    )
    flags = ("--accept-compressed", "false", "--max-unsent-bytes", str(ROOM))
    flags += ("--max-message-bytes", str(LARGEST))
    arrangement = ("--processes", *ARRANGEMENTS[request.param])
    with ready_process(folder, *arrangement, *flags) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            yield Served(process, channel, where["metrics_port"])
        process.terminate()
        assert process.exit_code() == 0


def assert_counted(served: Served, reason: str, method: str, before: float) -> None:
    assert served.refused(reason) == before + 1
    line = served.process.wait_for("a call was refused")
    assert (line["reason"], line["method"]) == (reason, method)
    assert line["peer"].startswith("ipv4:127.0.0.1:")


def unary(served: Served, method: str, message: bytes, **options: object) -> None:
    call = served.channel.unary_unary(method)
    failure(lambda: call(message, timeout=PATIENCE, **options))


def streamed(served: Served, method: str, message: bytes, **options: object) -> None:
    call = served.channel.stream_stream(method)
    # The error of a message comes as a message, that of the transport ends the stream.
    with suppress(grpc.RpcError):
        next(call(iter((message,)), timeout=PATIENCE, **options))


CALLS = [(unary, INFER), (unary, INDEX), (streamed, STREAM)]


@pytest.mark.parametrize(("send", "method"), CALLS, ids=["infer", "index", "stream"])
def test_compressed_requests_that_are_not_taken_are_counted(
    served: Served, send: Send, method: str
) -> None:
    before = served.refused("COMPRESSION_NOT_TAKEN")
    requests = 'inferd_requests_total{code="UNIMPLEMENTED",model="",version=""}'
    asked = served.metric(requests)
    send(served, method, bytes(1000), compression=grpc.Compression.Gzip)
    assert_counted(served, "COMPRESSION_NOT_TAKEN", method, before)
    # As a request, too, where it was one.
    assert served.metric(requests) == asked + (method != INDEX)


@pytest.mark.parametrize(("send", "method"), CALLS, ids=["infer", "index", "stream"])
def test_messages_that_grpc_refuses_for_their_size_are_counted(
    served: Served, send: Send, method: str, request: pytest.FixtureRequest
) -> None:
    before = served.refused("MESSAGE_BYTES")
    requests = 'inferd_requests_total{code="RESOURCE_EXHAUSTED",model="",version=""}'
    asked = served.metric(requests)
    send(served, method, bytes(LARGEST + 1))
    if request.node.callspec.params["served"] == "aio":
        # It tells nobody of them, as docs/security.md says.
        assert served.refused("MESSAGE_BYTES") == before
        return
    # The caller may hear of it from gRPC first.
    served.await_metric('inferd_refused_calls_total{reason="MESSAGE_BYTES"}', before + 1)
    assert served.metric(requests) == asked + (method != INDEX)
    line = served.process.wait_for("a call was refused")
    assert (line["reason"], line["method"]) == ("MESSAGE_BYTES", method)


@pytest.mark.parametrize(("send", "method"), CALLS, ids=["infer", "index", "stream"])
def test_messages_of_too_many_fields_are_counted(served: Served, send: Send, method: str) -> None:
    before = served.refused("MESSAGE_FIELDS")
    message = filled(part(3, b"")) if method == INDEX else TOO_MANY_FIELDS["empty inputs"]
    send(served, method, message)
    assert_counted(served, "MESSAGE_FIELDS", method, before)


def wide(number: int) -> ModelInferRequest:
    inputs = {"INPUT0": np.full((1, WIDTH), number, np.float32)}
    return infer_request("wide", inputs, ident=str(number))


def test_answers_that_wait_for_their_turn_are_bounded_and_counted(served: Served) -> None:
    """Those of `wide` are there at once, and may leave once `patient` has answered."""
    requests: queue.Queue[ModelInferRequest | None] = queue.Queue()
    # Without a deadline: nobody is held back whose time is up before.
    answers = served.stub.ModelStreamInfer(iter(requests.get, None))
    before = served.refused("UNSENT_BYTES")
    for request in (infer_request("patient", rows(1.0), ident="0"), wide(1), wide(2), wide(3)):
        requests.put(request)
    served.await_metric('inferd_refused_calls_total{reason="UNSENT_BYTES"}', before + 2)
    assert_counted(served, "UNSENT_BYTES", STREAM, before + 1)
    assert 4 * WIDTH <= served.metric("inferd_answer_bytes_unsent") <= ROOM
    # Others are answered meanwhile.
    assert arrays(served.stub.ModelInfer(wide(9)))["OUTPUT0"][0, 0] == 9
    served.stub.ModelInfer(infer_request("patient", rows(2.0)), timeout=PATIENCE)
    found = [next(answers) for _ in range(4)]
    assert [answer.infer_response.id for answer in found] == ["0", "1", "2", "3"]
    assert [kind(answer) for answer in found] == ["", "", *["MemoryBudgetExceeded"] * 2]
    assert "max_unsent_bytes" in found[2].error_message
    requests.put(None)
    assert list(answers) == []
    served.await_metric("inferd_answer_bytes_unsent", 0, 0)


def test_a_stream_that_is_cancelled_holds_no_answers(served: Served) -> None:
    requests: queue.Queue[ModelInferRequest | None] = queue.Queue()
    # Without a deadline: nobody is held back whose time is up before.
    answers = served.stub.ModelStreamInfer(iter(requests.get, None))
    for request in (infer_request("patient", rows(1.0)), wide(1)):
        requests.put(request)
    served.await_metric("inferd_answer_bytes_unsent", 4 * WIDTH)
    answers.cancel()
    served.await_metric("inferd_answer_bytes_unsent", 0, 0)
    requests.put(None)


def kind(answer: ModelStreamInferResponse) -> str:
    """Return the class of the error of an answer; "" for none."""
    return answer.infer_response.parameters["inferd_error"].string_param
