"""ModelStreamInfer: every request has one answer with its id, whatever happens to the others."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import grpc
import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from inferd.tensors import Array

from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running_fake,
)


class Conversation:
    """A stream whose requests the test sends one by one."""

    def __init__(self, server: Running) -> None:
        self._requests: queue.Queue[ModelInferRequest | None] = queue.Queue()
        self.answers = server.stub.ModelStreamInfer(
            iter(self._requests.get, None), timeout=PATIENCE
        )

    def ask(self, *values: float, model: str = "fake") -> None:
        ident = ",".join(str(value) for value in values)
        self._requests.put(infer_request(model, rows(*values), ident=ident))

    def close(self) -> None:
        self._requests.put(None)

    def next(self) -> ModelStreamInferResponse:
        answer: ModelStreamInferResponse = next(self.answers)
        return answer


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
        talk = Conversation(server)
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


def test_a_stream_without_requests_ends_well(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        talk = Conversation(server)
        talk.close()
        assert list(talk.answers) == []


def test_cancelling_a_stream_frees_what_waits_and_runs_none_of_it(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.hold()
        talk = Conversation(server)
        talk.ask(0.0)
        assert engine.running.wait(PATIENCE)
        for number in range(1, 6):
            talk.ask(float(number))
        talk.ask(1.0, model="nope")
        talk.next()
        handle = server.server.repository.resolve("fake", "")
        assert handle.queue.rows == 5
        talk.answers.cancel()
        other = Conversation(server)
        while handle.queue.rows:
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
        talk = Conversation(server)
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
        idle = Conversation(server)
        idle.ask(9.0)
        assert values(idle.next()).tolist() == [18.0]
        engine.hold()
        busy = Conversation(server)
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
