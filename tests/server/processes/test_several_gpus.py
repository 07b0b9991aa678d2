"""A server with a worker for each of two GPUs: one server to its callers, and two when one dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.gpus_server import DEVICES
from tests.server.processes.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)
from tests.server.serving import failure, infer_request, rows

SERVER = "tests.server.processes.gpus_server"
NAMES = ("left", "right", "both")
PLACES = dict(zip(NAMES, ("gpus: [0]", "gpus: [GPU-b]", "gpus: all"), strict=True))
FLAGS = (
    *("--engine-providers", "CUDAExecutionProvider", "--model-control", "on"),
    *("--fronts", "2", "--retry-wait-s", "60", "--strict-readiness", "false"),
)


def repository(folder: Path) -> Path:
    return models.repository(folder, dict.fromkeys(NAMES, models.scale(2.0)), PLACES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    folder = repository(tmp_path_factory.mktemp("host") / "models")
    with split_process(folder, *FLAGS, module=SERVER) as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


def called(server: Split, model: str) -> Callers:
    return Callers(server, 2, timeout=60.0, model=model)


def index(server: Split) -> dict[str, str]:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        found = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE).models
        return {each.name: each.state for each in found}


def counted(server: Split, model: str) -> int:
    """Return how many rows were inferred, as the statistics of all processes say."""
    with server.channel() as channel:
        request = oip.ModelStatisticsRequest(name=model)
        (found,) = GRPCInferenceServiceStub(channel).ModelStatistics(request).model_stats
        return int(found.inference_count)


def load(server: Split, model: str, config: str = "") -> None:
    request = oip.RepositoryModelLoadRequest(model_name=model)
    if config:
        request.parameters["config"].string_param = config
    with server.channel() as channel:
        GRPCInferenceServiceStub(channel).RepositoryModelLoad(request, timeout=PATIENCE)


def unload(server: Split, model: str) -> None:
    request = oip.RepositoryModelUnloadRequest(model_name=model)
    with server.channel() as channel:
        GRPCInferenceServiceStub(channel).RepositoryModelUnload(request, timeout=PATIENCE)


def infer(server: Split, model: str) -> None:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(infer_request(model, rows(1.0)), timeout=PATIENCE)


def on(server: Split, what: str) -> list[float]:
    """Return a metric of each GPU."""
    found = server.metrics()
    return [found[f'inferd_device_{what}{{device="{each.uuid}"}}'] for each in DEVICES]


def test_models_are_where_their_settings_say_and_the_index_is_that_of_one_server(
    server: Split,
) -> None:
    assert index(server) == dict.fromkeys(NAMES, "READY")
    assert on(server, "models") == [2, 2]
    assert on(server, "up") == [1, 1]


def test_a_model_on_two_gpus_runs_on_both_and_is_counted_as_one(server: Split) -> None:
    before, rows_before = counted(server, "both"), on(server, "rows_total")
    with called(server, "both") as callers:
        callers.answered(50)
    assert (callers.wrong, set(callers.codes)) == ([], {"OK"})
    waiting = threading.Event()
    for _ in range(500):
        # A worker counts a batch once it has answered it.
        ran = [now - then for now, then in zip(on(server, "rows_total"), rows_before, strict=True)]
        if counted(server, "both") - before == sum(ran):
            break
        waiting.wait(0.02)
    assert min(ran) > 0
    assert counted(server, "both") - before == sum(ran)


def test_a_worker_that_is_killed_costs_nobody_a_request_and_the_other_nothing(
    server: Split,
) -> None:
    left = Readiness(server, "left")
    left.wait_for(SERVING)
    right, pids = Readiness(server, "right"), server.pids()
    with (
        called(server, "left") as on_left,
        called(server, "both") as on_both,
        called(server, "right") as on_right,
    ):
        for _ in range(2):
            right.wait_for(SERVING)
            on_right.answered(5)
            server.kill("worker-1")
            right.wait_for(NOT_SERVING)
            # One model that serves is enough, by the setting.
            whole = Readiness(server)
            whole.wait_for(SERVING)
            whole.close()
            on_left.answered(10)
            on_both.answered(10)
        right.wait_for(SERVING)
        on_right.answered(5)
    for each in (on_left, on_right, on_both):
        assert (each.wrong, set(each.codes)) == ([], {"OK"})
    assert server.pids()["worker-0"] == pids["worker-0"]
    assert on(server, "restarts_total") == [0, 2]
    assert index(server) == dict.fromkeys(NAMES, "READY")
    for each in (left, right):
        each.close()


def test_a_model_on_two_gpus_is_loaded_and_unloaded_on_both_without_a_lost_request(
    server: Split,
) -> None:
    with called(server, "both") as callers:
        for _ in range(4):
            load(server, "both", '{"max_queue_delay_ms": 0.0}')
            callers.answered(5)
            load(server, "both")
            callers.answered(5)
    assert (callers.wrong, set(callers.codes)) == ([], {"OK"})
    unload(server, "both")
    assert on(server, "models") == [1, 1]
    assert index(server)["both"] == "UNAVAILABLE"
    assert failure(lambda: infer(server, "both")).code() == grpc.StatusCode.NOT_FOUND
    load(server, "both")
    infer(server, "both")
    assert on(server, "models") == [2, 2]


def test_a_model_that_is_to_be_on_another_gpu_moves_without_a_lost_request(server: Split) -> None:
    with called(server, "left") as callers:
        callers.answered(5)
        load(server, "left", '{"gpus": [1]}')
        assert on(server, "models") == [1, 3]
        callers.answered(5)
        load(server, "left")
        assert on(server, "models") == [2, 2]
        callers.answered(5)
    assert (callers.wrong, set(callers.codes)) == ([], {"OK"})


def test_a_gpu_that_is_not_there_is_refused_in_words_and_the_model_goes_on(server: Split) -> None:
    error = failure(lambda: load(server, "left", '{"gpus": [5]}'))
    assert "gpus names 5, and this server has 0 (GPU-aaaa), 1 (GPU-bbbb)" in error.details()
    infer(server, "left")
    assert on(server, "models") == [2, 2]
    unknown = failure(lambda: load(server, "unknown"))
    assert unknown.code() == grpc.StatusCode.NOT_FOUND
    assert failure(lambda: unload(server, "unknown")).code() == grpc.StatusCode.NOT_FOUND


def test_a_gpu_that_is_broken_from_the_start_leaves_its_models_to_the_other(tmp_path: Path) -> None:
    folder = repository(tmp_path / "models")
    models.repository(folder, dict.fromkeys(("one", "two"), models.scale(2.0)))
    (tmp_path / DEVICES[1].uuid).touch()
    with split_process(folder, *FLAGS, module=SERVER) as server:
        assert {name for name, state in index(server).items() if state == "READY"} == {
            *("left", "both", "one", "two")
        }
        error = failure(lambda: infer(server, "right"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "GPU GPU-bbbb is given up" in error.details()
        assert "it fell off the bus" in error.details()
        assert (on(server, "up"), on(server, "models")) == ([1, 0], [4, 0])
        server.process.terminate()
        assert server.process.exit_code() == 0
