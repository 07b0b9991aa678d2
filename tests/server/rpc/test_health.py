"""grpc.health.v1 over a real socket."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
)
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2 import inference_pb2 as oip

from tests import models
from tests.server.serving import PATIENCE, FakeEngines, Running, failure, running, running_fake

SERVICE = "inference.GRPCInferenceService"


def check(server: Running, service: str) -> str:
    request = HealthCheckRequest(service=service)
    return name(HealthStub(server.channel).Check(request, timeout=PATIENCE))


def watch(server: Running, service: str) -> grpc.CallIterator[HealthCheckResponse]:
    return HealthStub(server.channel).Watch(HealthCheckRequest(service=service), timeout=PATIENCE)


def name(answer: HealthCheckResponse) -> str:
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


def load(server: Running, model: str) -> None:
    request = oip.RepositoryModelLoadRequest(model_name=model)
    server.stub.RepositoryModelLoad(request, timeout=PATIENCE)


def unload(server: Running, model: str) -> None:
    request = oip.RepositoryModelUnloadRequest(model_name=model)
    server.stub.RepositoryModelUnload(request, timeout=PATIENCE)


@pytest.mark.parametrize("service", ["", SERVICE, "fake", "liveness"])
def test_a_service_that_serves_says_so(tmp_path: Path, service: str) -> None:
    with running_fake(tmp_path) as (server, _):
        assert check(server, service) == "SERVING"


def test_every_service_is_listed_with_its_status(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        unload(server, "fake")
        answer = HealthStub(server.channel).List(HealthListRequest(), timeout=PATIENCE)
        assert {service: name(status) for service, status in answer.statuses.items()} == {
            "": "NOT_SERVING",
            SERVICE: "NOT_SERVING",
            "liveness": "SERVING",
            "fake": "NOT_SERVING",
        }


@pytest.mark.parametrize("strict", [True, False])
def test_a_server_whose_last_model_was_unloaded_is_not_ready(tmp_path: Path, strict: bool) -> None:
    with running_fake(tmp_path, strict_readiness=strict) as (server, _):
        unload(server, "fake")
        assert check(server, "") == "NOT_SERVING"
        load(server, "fake")
        assert check(server, "") == "SERVING"


def test_a_server_that_may_be_without_models_is_ready_then(tmp_path: Path) -> None:
    with running_fake(tmp_path, ready_without_models=True) as (server, _):
        unload(server, "fake")
        assert check(server, "") == "SERVING"


def test_a_server_with_one_of_two_models_unloaded_is_ready(tmp_path: Path) -> None:
    (tmp_path / "other" / "1").mkdir(parents=True)
    with running_fake(tmp_path) as (server, _):
        unload(server, "fake")
        assert check(server, "") == "SERVING"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("without", [True, False])
def test_a_server_with_only_a_broken_model_is_not_ready(
    tmp_path: Path, strict: bool, without: bool
) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    settings = {"strict_readiness": strict, "ready_without_models": without}
    with running(tmp_path, **settings) as server:
        assert check(server, "") == "NOT_SERVING"


@pytest.mark.parametrize(("without", "status"), [(False, "NOT_SERVING"), (True, "SERVING")])
def test_a_server_without_models_is_ready_where_the_settings_say_so(
    tmp_path: Path, without: bool, status: str
) -> None:
    with running(tmp_path, ready_without_models=without) as server:
        assert check(server, "") == status


def test_a_model_that_is_gone_is_no_service_any_more(tmp_path: Path) -> None:
    with running_fake(tmp_path, FakeEngines()) as (server, _):
        model = watch(server, "fake")
        assert name(next(model)) == "SERVING"
        (tmp_path / "fake").rename(tmp_path / ".fake")
        unload(server, "fake")
        assert [name(next(model)) for _ in range(2)] == ["NOT_SERVING", "SERVICE_UNKNOWN"]
        assert failure(lambda: check(server, "fake")).code() == grpc.StatusCode.NOT_FOUND


def test_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        assert failure(lambda: check(server, "nope")).code() == grpc.StatusCode.NOT_FOUND


def test_before_the_models_are_loaded_only_liveness_serves(tmp_path: Path) -> None:
    models.repository(tmp_path, {"simple": models.add_sub()})
    with running(tmp_path, load=False) as server:
        assert check(server, "liveness") == "SERVING"
        assert check(server, "") == check(server, SERVICE) == "NOT_SERVING"
        overall, simple = watch(server, ""), watch(server, "simple")
        assert name(next(overall)) == "NOT_SERVING"
        assert name(next(simple)) == "SERVICE_UNKNOWN"
        server.server.load()
        assert name(next(overall)) == "SERVING"
        assert [name(next(simple)) for _ in range(2)] == ["NOT_SERVING", "SERVING"]


def test_a_watch_tells_of_unloading_loading_and_draining(tmp_path: Path) -> None:
    with running_fake(tmp_path, drain_delay_s=600, ready_without_models=True) as (server, _):
        model, overall = watch(server, "fake"), watch(server, "")
        assert name(next(model)) == name(next(overall)) == "SERVING"
        unload(server, "fake")
        assert name(next(model)) == "NOT_SERVING"
        load(server, "fake")
        assert name(next(model)) == "SERVING"
        hurry = threading.Event()
        draining = threading.Thread(target=server.server.drain, args=(hurry,))
        draining.start()
        assert name(next(overall)) == "NOT_SERVING"
        assert name(next(model)) == "NOT_SERVING"
        assert check(server, "liveness") == "SERVING"
        hurry.set()
        draining.join(PATIENCE)
        # A watch does not keep the server from stopping.
        assert not draining.is_alive()
        assert failure(lambda: next(overall)).code() == grpc.StatusCode.UNAVAILABLE


def test_a_watch_says_nothing_while_nothing_changes(tmp_path: Path) -> None:
    with running_fake(tmp_path, ready_without_models=True) as (server, _):
        overall, model = watch(server, ""), watch(server, "fake")
        assert name(next(overall)) == name(next(model)) == "SERVING"
        unload(server, "fake")
        assert name(next(model)) == "NOT_SERVING"
        server.server.drain(already_set())
        assert name(next(overall)) == "NOT_SERVING"


def test_a_second_request_of_a_watch_ends_it(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, _):
        call = server.channel.stream_stream("/grpc.health.v1.Health/Watch")
        answers = call(iter([b"", b""]), timeout=PATIENCE)
        assert name(HealthCheckResponse.FromString(next(answers))) == "SERVING"
        assert failure(lambda: next(answers)).code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("requests", [[], [b"\xff\xff"]])
def test_a_watch_without_a_good_request_ends(tmp_path: Path, requests: list[bytes]) -> None:
    with running_fake(tmp_path) as (server, _):
        call = server.channel.stream_stream("/grpc.health.v1.Health/Watch")
        answers = call(iter(requests), timeout=PATIENCE)
        assert failure(lambda: next(answers)).code() == grpc.StatusCode.INVALID_ARGUMENT


def already_set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event
