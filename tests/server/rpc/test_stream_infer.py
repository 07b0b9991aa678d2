"""ModelStreamInfer: every request has one answer, in its turn, whatever happens to the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from inferd.tensors import Array, Buffer
from inferd_engines.engine import Signature, Tensor
from inferd_server.errors import EngineFailure, InferdError, InvalidInput, QueueFull
from inferd_server.inference.wire import ID_TAG
from inferd_server.rpc.stream import InferReceiver, error_response
from inferd_server.transport.call import Call

from tests.fakes.call import FakeStream
from tests.fakes.engine import FakeEngine
from tests.server.inference.held import await_rows
from tests.server.serving import (
    PATIENCE,
    FakeEngines,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running_fake,
)


class Conversation:
    """A stream whose requests the test sends one by one."""

    def __init__(self, server: Running, **metadata: str) -> None:
        self._requests: queue.Queue[ModelInferRequest | None] = queue.Queue()
        given = [(name.replace("__", "-"), value) for name, value in metadata.items()]
        self.answers = server.stub.ModelStreamInfer(
            iter(self._requests.get, None), timeout=PATIENCE, metadata=given
        )

    def ask(self, *values: float, model: str = "fake") -> None:
        ident = ",".join(str(value) for value in values)
        self._requests.put(infer_request(model, rows(*values), ident=ident))

    def send(self, request: ModelInferRequest) -> None:
        self._requests.put(request)

    def close(self) -> None:
        self._requests.put(None)

    def next(self) -> ModelStreamInferResponse:
        answer: ModelStreamInferResponse = next(self.answers)
        return answer


AS_READY = {"inferd__stream__order": "completion"}


def values(answer: ModelStreamInferResponse) -> Array:
    assert answer.error_message == ""
    return arrays(answer.infer_response)["OUTPUT0"][:, 0]


def test_every_request_is_answered_with_its_id(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        talk = Conversation(server)
        for number in range(100):
            talk.ask(float(number))
        talk.close()
        answers = {a.infer_response.id: values(a).tolist() for a in talk.answers}
        assert answers == {str(float(n)): [2.0 * n] for n in range(100)}


def test_requests_of_one_stream_share_a_batch(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.hold()
        talk = Conversation(server, **AS_READY)
        talk.ask(0.0)
        assert engine.running.wait(PATIENCE)
        for number in range(1, 6):
            talk.ask(float(number))
        # Refused at once, so that the five before it wait by now.
        talk.ask(1.0, model="nope")
        assert talk.next().error_message
        engine.release()
        talk.close()
        np.testing.assert_array_equal(
            np.concatenate([values(a) for a in talk.answers]), range(0, 12, 2)
        )
        assert [batch.rows for batch in engine.batches] == [1, 5]


def test_an_error_answers_its_request_and_the_stream_goes_on(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        talk = Conversation(server)
        talk.ask(1.0, model="nope")
        refused = talk.next()
        assert "'nope'" in refused.error_message
        assert refused.infer_response.id == "1.0"
        assert refused.infer_response.model_name == "nope"
        assert refused.infer_response.parameters["inferd_error"].string_param == "ModelNotFound"
        talk.ask(2.0)
        assert values(talk.next()).tolist() == [4.0]
        talk.close()
        assert list(talk.answers) == []
        assert talk.answers.code() == grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (QueueFull("full", retry_after=0.0121), ("QueueFull", "QUEUE_FULL", 13)),
        (InvalidInput("no", reason="QUARANTINED"), ("InvalidInput", "QUARANTINED", None)),
    ],
)
def test_an_answer_tells_the_reason_of_its_error_and_when_to_try_again(
    error: InferdError, told: tuple[str, str, int | None]
) -> None:
    parameters = error_response(b"", error).parameters
    retry = parameters["inferd_retry_after_ms"].int64_param if told[2] is not None else None
    found = [parameters[name].string_param for name in ("inferd_error", "inferd_reason")]
    assert (*found, retry) == told
    assert ("inferd_retry_after_ms" in parameters) == (told[2] is not None)


def test_a_stream_without_requests_ends_well(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        talk = Conversation(server)
        talk.close()
        assert list(talk.answers) == []


def test_cancelling_a_stream_frees_what_waits_and_runs_none_of_it(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.hold()
        talk = Conversation(server, **AS_READY)
        talk.ask(0.0)
        assert engine.running.wait(PATIENCE)
        for number in range(1, 6):
            talk.ask(float(number))
        talk.ask(1.0, model="nope")
        talk.next()
        handle = server.server.repository.resolve("fake", "")
        assert handle.queue.rows == 5
        talk.answers.cancel()
        other = Conversation(server, **AS_READY)
        # A row leaves the queue before it leaves the arena.
        while handle.queue.rows or handle.arena.rows > 1:
            other.ask(1.0, model="nope")
            other.next()
        assert handle.arena.rows == 1
        other.answers.cancel()
        engine.release()
        server.infer(infer_request("fake", rows(7.0)))
        assert [batch.rows for batch in engine.batches] == [1, 1]


def test_a_full_queue_answers_in_the_stream(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_batch_size=1, max_queue_rows=1) as (server, engine):
        engine.hold()
        talk = Conversation(server, **AS_READY)
        talk.ask(1.0)
        assert engine.running.wait(PATIENCE)
        talk.ask(2.0)
        refused = talk.next()
        assert refused.infer_response.id == "2.0"
        assert refused.infer_response.parameters["inferd_error"].string_param == "QueueFull"
        engine.release()
        assert values(talk.next()).tolist() == [2.0]
        talk.answers.cancel()


def test_requests_ahead_of_their_answers_are_bounded(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_stream_messages=3) as (server, engine):
        engine.hold()
        talk = Conversation(server)
        for number in range(20):
            talk.ask(float(number))
        assert engine.running.wait(PATIENCE)
        handle = server.server.repository.resolve("fake", "")
        other = Conversation(server)
        while handle.arena.rows < 3:
            other.ask(1.0, model="nope")
            other.next()
        for _ in range(20):
            other.ask(1.0, model="nope")
            other.next()
        assert handle.arena.rows == 3
        other.answers.cancel()
        engine.release()
        talk.close()
        assert sorted(float(values(a)[0]) for a in talk.answers) == [2.0 * n for n in range(20)]


def test_a_stop_answers_what_is_pending_and_then_ends_the_stream(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        idle = Conversation(server, **AS_READY)
        idle.ask(9.0)
        assert values(idle.next()).tolist() == [18.0]
        engine.hold()
        busy = Conversation(server, **AS_READY)
        busy.ask(1.0)
        assert engine.running.wait(PATIENCE)
        stopping = threading.Thread(target=server.server.stop, args=(60.0,))
        stopping.start()
        error = failure(idle.next)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        busy.ask(2.0)
        refused = busy.next()
        assert refused.infer_response.parameters["inferd_error"].string_param == "ShuttingDown"
        engine.release()
        assert values(busy.next()).tolist() == [2.0]
        assert failure(busy.next).code() == grpc.StatusCode.UNAVAILABLE
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


WIDTHS = Signature(
    (Tensor("INPUT0", np.dtype(np.float32), (None, None)),),
    (Tensor("OUTPUT0", np.dtype(np.float32), (None, None)),),
)


def of_width(width: int, number: int, model: str = "fake") -> ModelInferRequest:
    return infer_request(model, {"INPUT0": np.full((1, width), number, np.float32)})


def numbers(answers: Iterable[ModelStreamInferResponse]) -> list[float]:
    return [float(values(answer)[0]) for answer in answers]


def test_answers_come_in_the_order_of_the_requests_though_batches_run_in_another(
    tmp_path: Path,
) -> None:
    with running_fake(tmp_path, FakeEngines(lambda: FakeEngine(WIDTHS))) as (server, engine):
        engine.hold()
        talk = Conversation(server)
        talk.send(of_width(4, 0))
        assert engine.running.wait(PATIENCE)
        for number, width in enumerate((4, 7, 4, 7, 4), start=1):
            talk.send(of_width(width, number))
        queue_of = server.server.repository.resolve("fake", "").queue
        await_rows(server, lambda: queue_of.rows == 5)
        engine.release()
        talk.close()
        assert numbers(talk.answers) == [0, 2, 4, 6, 8, 10]
        assert [batch.inputs["INPUT0"].shape for batch in engine.batches] == [
            (1, 4),
            (3, 4),
            (2, 7),
        ]


def test_an_early_error_waits_for_the_answers_before_it(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.hold()
        talk = Conversation(server)
        talk.ask(1.0)
        assert engine.running.wait(PATIENCE)
        talk.ask(2.0, model="nope")
        other = Conversation(server)
        other.ask(3.0, model="nope")
        assert other.next().error_message
        other.answers.cancel()
        engine.release()
        assert values(talk.next()).tolist() == [2.0]
        assert "'nope'" in talk.next().error_message
        talk.answers.cancel()


def test_a_stream_may_ask_for_answers_as_they_are_ready(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.hold()
        talk = Conversation(server, **AS_READY)
        talk.ask(1.0)
        assert engine.running.wait(PATIENCE)
        talk.ask(2.0, model="nope")
        assert talk.next().infer_response.id == "2.0"
        engine.release()
        assert values(talk.next()).tolist() == [2.0]
        talk.answers.cancel()


def test_another_order_is_refused(served: Running) -> None:
    talk = Conversation(served, inferd__stream__order="random")
    talk.ask(1.0)
    error = failure(talk.next)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "inferd-stream-order is 'random'; 'request' or 'completion'" in error.details()


def test_answers_of_mixed_widths_keep_the_order_of_their_requests(served: Running) -> None:
    widths = [4, 4, 7, 4, 7, 4] * 20
    sent = [of_width(width, number, "free") for number, width in enumerate(widths)]
    answers = served.stub.ModelStreamInfer(iter(sent), timeout=PATIENCE)
    assert numbers(answers) == [2.0 * number for number in range(len(sent))]


def test_a_stream_that_asks_for_it_ends_with_the_status_of_its_first_error(served: Running) -> None:
    talk = Conversation(served, triton_grpc_error="true")
    for number in range(5):
        talk.send(of_width(3, number, "free"))
    talk.ask(1.0, model="nope")
    talk.send(of_width(3, 9, "free"))
    assert numbers(talk.next() for _ in range(5)) == [0, 2, 4, 6, 8]
    error = failure(talk.next)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert "'nope'" in error.details()


def test_an_answer_that_cannot_be_sent_ends_the_stream() -> None:
    class Full(FakeStream):
        def send(self, parts: Sequence[Buffer]) -> None:
            raise MemoryError

    stream, calls = Full(), list[Call]()
    receiver = InferReceiver(stream, calls.append)
    receiver.message(b"")
    calls[0].reply((b"answer",))
    assert [type(error) for error in stream.errors] == [EngineFailure]


@given(st.permutations(range(6)))
def test_whatever_is_ready_first_answers_leave_in_order(order: list[int]) -> None:
    stream, calls = FakeStream(), list[Call]()
    receiver = InferReceiver(stream, calls.append)
    for _ in order:
        receiver.message(b"")
    receiver.half_closed()
    for number in order:
        if number % 3:
            calls[number].reply((ID_TAG + bytes([1]), str(number).encode()))
        else:
            calls[number].fail(InvalidInput(str(number)))
    found = [ModelStreamInferResponse.FromString(message) for message in stream.sent]
    assert [a.infer_response.id or a.error_message for a in found] == [str(n) for n in range(6)]
