"""A replica under a supervisor that a test plays: when it listens, and what callers get."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2.inference_pb2 import ModelReadyRequest, RepositoryIndexRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.models.overrides import Override
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes import messages
from inferd_server.processes.link.inputs import layout_of
from inferd_server.processes.links import Links
from inferd_server.processes.ports import ReservedPort
from inferd_server.processes.replica import ReplicaProcess
from inferd_server.settings.sources import load_settings
from inferd_server.transport.making import AIO, make
from inferd_server.transport.options import transport_options

from tests.fakes.child import WITHIN, FakeChannel
from tests.server.models.bench import Engines
from tests.server.serving import PATIENCE, arrays, failure, infer_request, rows


class Ours(FakeChannel):
    """The replica's end of the channel: it reads what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.says: SimpleQueue[object] = SimpleQueue()

    def tell_latest(self, make: Callable[[], object]) -> None:
        if (message := make()) is not None:
            self.tell(message)

    def read(self, handle: Callable[[object], object]) -> None:
        while (message := self.says.get(timeout=WITHIN)) is not None:
            handle(message)


class Replica:
    """A replica in this process, with engines that a test can hold."""

    def __init__(self, folder: Path, **place: Any) -> None:
        self.engines = Engines()
        self.channel = Ours()
        flags = {"model_repository": str(folder), "transport": AIO, "verdict_store": ""}
        settings = load_settings(flags, {})
        self.port = ReservedPort("127.0.0.1", 0)
        links = Links(0, layout_of(settings.split))
        given = replace(links.for_replica(0, settings, self.port.address, ""), **place)
        transport = make(AIO, transport_options(settings.listen, reuse_port=True))
        logs = LogControl(settings.log, io.StringIO())
        channel: Any = self.channel
        process = ReplicaProcess(given, channel, self.engines, transport, logs)
        self._thread = Thread(target=process.run, daemon=True)
        self._thread.start()
        self.grpc = grpc.insecure_channel(self.port.address)
        self.stub = GRPCInferenceServiceStub(self.grpc)

    def told(self, kind: type) -> Any:
        """Return the next message of a kind that it tells."""
        while not isinstance(message := self.channel.told.get(timeout=WITHIN), kind):
            pass
        return message

    def say(self, *messages_: object) -> None:
        for message in messages_:
            self.channel.says.put(message)

    def refusal(self, model: str) -> grpc.StatusCode:
        request = infer_request(model, rows(1.0))
        error = failure(lambda: self.stub.ModelInfer(request, timeout=PATIENCE))
        code: grpc.StatusCode = error.code()
        return code

    def close(self) -> None:
        self.engines.release()
        self.say(messages.Stop(0.0), None)
        self._thread.join(WITHIN)
        assert not self._thread.is_alive()
        self.grpc.close()
        self.port.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"m")
    return tmp_path


@pytest.fixture
def replica(folder: Path) -> Iterator[Replica]:
    made = Replica(folder)
    yield made
    made.close()


def test_a_replica_takes_no_calls_before_it_is_told_to(replica: Replica) -> None:
    assert replica.told(messages.Loaded).failed == frozenset()
    replica.say(messages.Condition(ready=True, draining=False), messages.Ping())
    # Whatever comes before the answer would be that it listens.
    while not isinstance(told := replica.channel.told.get(timeout=WITHIN), messages.Ping):
        assert not isinstance(told, messages.Listening)
    replica.say(messages.Listen(), messages.Listen())
    assert replica.told(messages.Listening).transport == AIO
    answer = replica.stub.ModelInfer(infer_request("m", rows(1.0)), timeout=PATIENCE)
    assert arrays(answer)["OUTPUT0"][0, 0] == 2.0


def test_while_models_are_loaded_no_caller_is_told_that_one_does_not_exist(
    folder: Path,
) -> None:
    made = Replica(folder, awaits_overrides=True)
    try:
        made.engines.hold()
        made.say(messages.ModelOverrides({}), messages.Listen())
        made.told(messages.Listening)
        assert made.refusal("m") is grpc.StatusCode.UNAVAILABLE
        assert made.refusal("x") is grpc.StatusCode.UNAVAILABLE
        made.engines.release()
        assert made.told(messages.Loaded).failed == frozenset()
        assert made.refusal("x") is grpc.StatusCode.NOT_FOUND
    finally:
        made.close()


def test_health_is_what_the_supervisor_says_of_all(replica: Replica) -> None:
    replica.told(messages.Loaded)
    replica.say(messages.Listen())
    replica.told(messages.Listening)
    health = HealthStub(replica.grpc)
    assert status(health, "") == HealthCheckResponse.NOT_SERVING
    replica.say(messages.Condition(ready=False, draining=False), messages.Ping())
    replica.told(messages.Ping)
    assert status(health, "m") == HealthCheckResponse.SERVING
    sick = (("m", 1, "not in every replica process"),)
    replica.say(messages.Condition(ready=True, draining=False, sick=sick), messages.Ping())
    replica.told(messages.Ping)
    assert status(health, "") == HealthCheckResponse.SERVING
    assert status(health, "m") == HealthCheckResponse.NOT_SERVING
    # Who asks all the same is answered.
    replica.stub.ModelInfer(infer_request("m", rows(1.0)), timeout=PATIENCE)


def test_no_model_is_said_to_be_ready_before_all_replicas_have_tried_theirs(
    replica: Replica,
) -> None:
    def told() -> tuple[bool, list[str], int]:
        ready = replica.stub.ModelReady(ModelReadyRequest(name="m"), timeout=PATIENCE).ready
        index = replica.stub.RepositoryIndex(RepositoryIndexRequest(), timeout=PATIENCE).models
        return ready, [model.state for model in index], status(health, "m")

    health = HealthStub(replica.grpc)
    replica.told(messages.Loaded)
    replica.say(messages.Listen())
    replica.told(messages.Listening)
    assert told() == (False, ["LOADING"], HealthCheckResponse.NOT_SERVING)
    # Who asks all the same is answered.
    replica.stub.ModelInfer(infer_request("m", rows(1.0)), timeout=PATIENCE)
    replica.say(messages.Condition(ready=True, draining=False), messages.Ping())
    replica.told(messages.Ping)
    assert told() == (True, ["READY"], HealthCheckResponse.SERVING)


def status(health: HealthStub, service: str) -> int:
    answer = health.Check(HealthCheckRequest(service=service), timeout=PATIENCE)
    return int(answer.status)


def test_a_new_replica_loads_nothing_before_it_knows_what_callers_gave(folder: Path) -> None:
    made = Replica(folder, awaits_overrides=True, unloaded=frozenset({"m"}))
    try:
        made.say(messages.Ping())
        made.told(messages.Ping)
        assert made.engines.asked == []
        given = Override("{}", {"1/model.onnx": b"given"})
        made.say(messages.ModelOverrides({"n": given}))
        made.told(messages.Loaded)
        assert [path for path, _ in made.engines.asked] == ["n/1/model.onnx"]
    finally:
        made.close()


def test_a_load_goes_on_once_the_supervisor_says_that_all_are_as_far(replica: Replica) -> None:
    replica.told(messages.Loaded)
    answers: list[object] = []
    replica.channel.reply = answers.append
    replica.say(messages.Load("m"), messages.Ping())
    replica.told(messages.Ping)
    assert answers == [messages.Opened("m"), messages.Taking("m")]
