"""A server of several processes on the stand-in: right answers, and nothing of the GPU lost."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.v1.server_pb2 import ModelVersionStatus, StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub

from tests import models
from tests.device.library import HERE, Missing, environment
from tests.server.lifecycle.process import PATIENCE, SOURCES, clean_environment
from tests.server.supervisor.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)

pytestmark = pytest.mark.timeout(600)
KINDS = ("bytes", "pinned", "registered", "streams", "events", "graphs", "violations")
EAGER = "1"


@dataclass
class Host:
    """A server whose worker has a GPU, and what each process holds of it."""

    server: Split
    reports: Path

    def held(self) -> dict[str, int]:
        """Return what the worker that is there now has taken and not given back."""
        data = (self.reports / str(self.server.pids()["worker"])).read_bytes()
        return dict(zip(KINDS, struct.unpack(f"{len(KINDS)}q", data), strict=True))

    def violations(self) -> int:
        """Return how often any process used what was gone."""
        found = [path.read_bytes() for path in self.reports.iterdir()]
        return sum(struct.unpack(f"{len(KINDS)}q", data)[-1] for data in found)

    def status(self) -> ModelVersionStatus:
        with self.server.channel() as channel:
            (found,) = ServerServiceStub(channel).Status(StatusRequest(), timeout=PATIENCE).models
        return found

    def reload(self) -> None:
        with self.server.channel() as channel:
            load = oip.RepositoryModelLoadRequest(model_name="scaled")
            GRPCInferenceServiceStub(channel).RepositoryModelLoad(load, timeout=PATIENCE)


def settings(reports: Path) -> dict[str, str]:
    """Return the environment of a host with the stand-in, skipping where it cannot be had."""
    try:
        found = environment()
    except Missing as error:
        pytest.skip(str(error))
    modules = [SOURCES, found["PYTHONPATH"], str(HERE / "site")]
    return {
        **found,
        "PYTHONPATH": os.pathsep.join(modules),
        "STANDIN_PACE": EAGER,
        "STANDIN_STRICT": "1",
        "STANDIN_REPORT": str(reports),
    }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    repository = models.repository(folder / "models", {"scaled": models.scale(2.0)})
    plans, reports = folder / "plans", folder / "reports"
    reports.mkdir()
    found = settings(reports)
    build = [sys.executable, "-m", "inferd_engines.tensorrt"]
    model = next(repository.glob("scaled/1/*.onnx"))
    subprocess.run(
        [*build, str(model), "--output", str(plans)],
        env=clean_environment() | found,
        check=True,
        capture_output=True,
        timeout=60,
    )
    flags = ("--plan-store", str(plans), "--retry-wait-s", "60", "--model-control", "on")
    with split_process(repository, *flags, environment=found) as server:
        yield Host(server, reports)
        server.process.terminate()
        assert server.process.exit_code() == 0


def test_a_split_server_runs_plans_and_reads_requests_where_they_lie(host: Host) -> None:
    found = host.status()
    assert (found.engine, found.engine_reason) == ("tensorrt/Fake GPU", "")
    with Callers(host.server, 4, timeout=60.0) as callers:
        callers.answered(100)
    assert (callers.wrong, set(callers.codes)) == ([], {"OK"})
    assert host.held()["registered"] == 1
    assert host.held()["graphs"] > 0


def test_workers_that_die_and_models_that_are_loaded_anew_cost_no_request_and_no_memory(
    host: Host,
) -> None:
    die_and_reload(host, kills=2, reloads=4, requests=200)


@pytest.mark.slow
def test_ten_thousand_requests_twenty_deaths_and_fifty_reloads(host: Host) -> None:
    die_and_reload(host, kills=20, reloads=50, requests=10_000)


def die_and_reload(host: Host, *, kills: int, reloads: int, requests: int) -> None:
    """Kill the worker and load the model anew, under callers that check every answer."""
    readiness = Readiness(host.server)
    with Callers(host.server, 6, timeout=120.0) as callers:
        for _ in range(kills):
            readiness.wait_for(SERVING)
            callers.answered(20)
            host.server.kill("worker")
            readiness.wait_for(NOT_SERVING)
        readiness.wait_for(SERVING)
        host.reload()
        before = settled(host)
        for _ in range(reloads):
            host.reload()
            callers.answered(5)
        while callers.codes["OK"] < requests:
            callers.answered(20)
    readiness.close()
    assert (callers.wrong, set(callers.codes)) == ([], {"OK"})
    assert settled(host) == before
    assert host.violations() == 0
    assert host.status().engine == "tensorrt/Fake GPU"


def settled(host: Host) -> dict[str, int]:
    """Return what the worker holds once it holds the same for a while: old engines close later."""
    waiting, same, last = threading.Event(), 0, host.held()
    for _ in range(600):
        waiting.wait(0.02)
        found = host.held()
        same = same + 1 if found == last else 0
        last = found
        if same == 15:
            break
    return last
