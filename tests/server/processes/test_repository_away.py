"""The worker dies while the repository is away: not ready, not dead, and back with the files."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.split import NOT_SERVING, SERVING, Readiness, Split, split_process
from tests.server.serving import arrays, failure, infer_request, rows


@pytest.mark.parametrize("away", ["renamed", "empty", "one file missing"])
@pytest.mark.parametrize("strict", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_served_is_loaded_again_when_its_files_are_back(
    tmp_path: Path, away: str, strict: bool
) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--fronts", "1", "--strict-readiness", json.dumps(strict))
    with split_process(repository, *flags) as server:
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        place = repository / "scaled" / "1" / "model.onnx" if "file" in away else repository
        kept = place.rename(tmp_path / "away")
        if away == "empty":
            repository.mkdir()
        server.kill("worker")
        readiness.wait_for(NOT_SERVING)
        assert "scaled" in server.process.wait_for("not ready").get("failed", "scaled")
        assert alive(server)
        if away == "empty":
            repository.rmdir()
        kept.rename(place)
        readiness.wait_for(SERVING)
        readiness.close()
        assert answer(server) == 2.0
        assert server.process.runs


def alive(server: Split) -> bool:
    with server.channel() as channel:
        stub = HealthStub(channel)
        request = HealthCheckRequest(service="liveness")
        return bool(stub.Check(request, timeout=PATIENCE).status == SERVING)


def answer(server: Split) -> float:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        found = stub.ModelInfer(infer_request("scaled", rows(1.0)), timeout=PATIENCE)
        return float(arrays(found)["OUTPUT0"][0, 0])


def test_known_answers_are_given_while_no_worker_serves(tmp_path: Path) -> None:
    repository = models.repository(
        tmp_path / "models", {"scaled": models.scale(2.0)}, {"scaled": "response_cache: {}\n"}
    )
    with split_process(repository, "--fronts", "1") as server, server.channel() as channel:
        stub, request = GRPCInferenceServiceStub(channel), infer_request("scaled", rows(1.0))
        stub.ModelInfer(request, timeout=PATIENCE)
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        repository.rename(tmp_path / "away")
        server.kill("worker")
        readiness.wait_for(NOT_SERVING)
        # The next worker has tried to load it by then, and found nothing.
        server.process.wait_for("not ready")
        for _ in range(3):
            found, call = stub.ModelInfer.with_call(request, timeout=PATIENCE)
            assert arrays(found)["OUTPUT0"][0, 0] == 2.0
            assert dict(call.trailing_metadata())["inferd-cache"] == "hit"
        (tmp_path / "away").rename(repository)
        readiness.wait_for(SERVING)
        readiness.close()


def test_a_server_of_processes_without_models_is_not_ready_and_says_why(tmp_path: Path) -> None:
    repository = models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with split_process(repository, "--fronts", "1") as server, server.channel() as channel:
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        unload = oip.RepositoryModelUnloadRequest(model_name="scaled")
        GRPCInferenceServiceStub(channel).RepositoryModelUnload(unload, timeout=PATIENCE)
        readiness.wait_for(NOT_SERVING)
        readiness.close()


def test_a_model_that_was_unloaded_stays_so_when_the_worker_dies(tmp_path: Path) -> None:
    repository = models.repository(
        tmp_path, {"gone": models.scale(2.0), "scaled": models.scale(2.0)}
    )
    with split_process(repository, "--fronts", "1") as server, server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        unload = oip.RepositoryModelUnloadRequest(model_name="gone")
        stub.RepositoryModelUnload(unload, timeout=PATIENCE)
        server.kill("worker")
        readiness.wait_for(NOT_SERVING)
        readiness.wait_for(SERVING)
        readiness.close()
        index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE)
        assert {(m.name, m.state, m.reason) for m in index.models} == {
            ("gone", "UNAVAILABLE", "unloaded"),
            ("scaled", "READY", ""),
        }
        error = failure(lambda: stub.ModelInfer(infer_request("gone", rows(1.0)), timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="gone"))
        assert {m.state for m in stub.RepositoryIndex(oip.RepositoryIndexRequest()).models} == {
            "READY"
        }
