"""What callers set of the log holds for processes that start later, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.split import NOT_SERVING, SERVING, Readiness, Split, split_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    folder = models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})
    with split_process(folder, "--fronts", "1") as server:
        yield server


def log_info(server: Split, *change: bool) -> bool:
    """Return whether the front that answers writes lines of this level, changed before."""
    request = oip.LogSettingsRequest()
    for value in change:
        request.settings["log_info"].bool_param = value
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.LogSettings(request, timeout=PATIENCE, wait_for_ready=True)
    return bool(answer.settings["log_info"].bool_param)


def lines_of(server: Split, part: str) -> list[str]:
    entries = [json.loads(line) for line in list(server.process.lines)]
    return [entry["level"] for entry in entries if entry.get("part") == part]


def test_a_process_that_starts_anew_logs_what_callers_set(server: Split) -> None:
    assert log_info(server)
    assert "INFO" in lines_of(server, "worker")
    readiness = Readiness(server)
    readiness.wait_for(SERVING)
    assert not log_info(server, False)
    before = len(lines_of(server, "worker"))
    server.kill("worker")
    readiness.wait_for(NOT_SERVING)
    readiness.wait_for(SERVING)
    server.kill("front-0")
    # Of a new front, over a new connection.
    readiness.wait_for(SERVING)
    readiness.close()
    # Of the worker's start and of its models there would be some.
    assert "INFO" not in lines_of(server, "worker")[before:]
    assert not log_info(server)
