"""What every process that takes calls has: it listens as a whole, or not at all."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd_server.errors import AddressInUse, ModelNotFound
from inferd_server.feedback.keys import token_keys
from inferd_server.models.entries import ModelEntry
from inferd_server.models.version import Handle
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes.endpoint import Changes, Endpoint
from inferd_server.processes.messages import Condition
from inferd_server.settings.sources import load_settings
from inferd_server.transport.making import AIO, for_probes, make
from inferd_server.transport.options import transport_options

from tests.server.serving import PATIENCE, failure

READY = Condition(ready=True, draining=False, sick=(("m", 1, "late"),))


class NoModels:
    """Models of which there are none."""

    def resolve(self, name: str, version: str) -> Handle:
        raise ModelNotFound(name + version)

    def choose(self, name: str, version: str) -> ModelEntry:
        raise ModelNotFound(name + version)

    def entries(self) -> list[ModelEntry]:
        return []


def endpoint(folder: Path, told: list[Condition]) -> Endpoint:
    settings = load_settings({"model_repository": str(folder)}, {})
    options = transport_options(settings.listen)
    return Endpoint(
        settings,
        token_keys(settings.feedback),
        make(AIO, options),
        NoModels(),
        Metrics(),
        lambda: READY,
        lambda _: None,
        lambda: None,
        dict,
        lambda: 0.0,
        make(AIO, for_probes(options)),
        told.append,
    )


def changes() -> Changes:
    anything: Any = object()
    return Changes(anything, anything, anything, anything, anything)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Endpoint, list[Condition]]:
    told: list[Condition] = []
    return endpoint(tmp_path, told), told


def test_what_is_true_of_the_server_is_told_on_both_ports(
    made: tuple[Endpoint, list[Condition]],
) -> None:
    found, told = made
    port = found.start("127.0.0.1:0", "127.0.0.1:0", changes())
    found.publish()
    assert told == [READY]
    for number in (port, found.probe_port):
        with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
            assert answer.status == HealthCheckResponse.SERVING
    found.stop(0.0)
    assert found.close(PATIENCE)


def test_where_calls_cannot_be_taken_probes_are_not_answered_either(
    made: tuple[Endpoint, list[Condition]],
) -> None:
    found, _ = made
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressInUse):
        found.start(f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:0", changes())
    with grpc.insecure_channel(f"127.0.0.1:{found.probe_port}") as channel:
        error = failure(lambda: HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
