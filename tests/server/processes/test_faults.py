"""Engines that fail inside a worker process: it ends or is ended, and the server goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.v1.server_pb2 import StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub
from inferd_server.batching.fatal import EXIT_CODE
from inferd_server.models.entries import LEFT_OUT
from inferd_server.processes.policy import FAILURES_ON_GPU
from inferd_server.processes.worker_deaths import LOADS

from tests import models
from tests.fakes.faulty import DEADLY, FORGIVEN, HANGS_ONCE, KILLS, KILLS_ONCE, LOSES_ONCE
from tests.server.lifecycle.process import PATIENCE, Process, ready_process
from tests.server.processes.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)
from tests.server.serving import arrays, failure, infer_request, rows

CONNECTIONS = 8
"""So many that the kernel hands some to each of two fronts, all but surely."""
STOPPED_S = 3.0
"""Room for a busy machine: a look every 0.25 s, and four of them tell."""
FAULTY = "tests.server.processes.faulty_server"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Split]:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    with split_process(repository, "--fronts", "2", module=FAULTY) as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


def ask(server: Split, *values: float) -> list[float]:
    """Return the answer to one request over a connection of its own."""
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(infer_request("scaled", rows(*values)), timeout=PATIENCE)
        found: list[float] = arrays(answer)["OUTPUT0"][:, 0].tolist()
        return found


def states(server: Split) -> dict[str, object]:
    """Return what each method says of the model."""
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        (index,) = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE).models
        (status,) = ServerServiceStub(channel).Status(StatusRequest(), timeout=PATIENCE).models
        ready = stub.ModelReady(oip.ModelReadyRequest(name="scaled"), timeout=PATIENCE).ready
    return {"index": index.state, "status": status.state, "ready": ready}


def test_an_engine_that_is_lost_ends_its_worker_at_once_and_another_one_serves(
    server: Split,
) -> None:
    readiness = Readiness(server)
    readiness.wait_for(SERVING)
    # Sent again to the next worker, which survives it.
    assert ask(server, LOSES_ONCE, 3.0) == [2 * LOSES_ONCE, 6.0]
    lost = server.process.wait_for("lost")
    assert (lost["code"], lost["cause"]) == (EXIT_CODE, "its engine failed for good")
    readiness.wait_for(NOT_SERVING)
    readiness.wait_for(SERVING)
    readiness.close()
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 1


def test_a_stream_is_answered_though_the_worker_dies_under_it(server: Split) -> None:
    requests = [infer_request("scaled", rows(value)) for value in (1.0, KILLS_ONCE, 2.0)]
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter(requests), timeout=PATIENCE))
    assert [answer.error_message for answer in answers] == ["", "", ""]
    found = [float(arrays(answer.infer_response)["OUTPUT0"][0, 0]) for answer in answers]
    assert sorted(found) == [2.0, 4.0, 2 * KILLS_ONCE]
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 1


def test_a_request_that_kills_two_workers_is_refused_by_every_front_and_others_are_answered(
    server: Split,
) -> None:
    with Callers(server) as callers:
        callers.answered(20)
        error = failure(lambda: ask(server, KILLS))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "refused" in error.details()
        callers.answered(20)
    assert callers.wrong == []
    assert set(callers.codes) == {"OK"}
    for _ in range(CONNECTIONS):
        assert failure(lambda: ask(server, KILLS)).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 2


def test_a_stopped_worker_is_told_within_about_a_second_and_when_it_goes_on(
    server: Split,
) -> None:
    whole, model = Readiness(server), Readiness(server, "scaled")
    for watch in (whole, model):
        watch.wait_for(SERVING)
    server.kill("worker", signal.SIGSTOP)
    stopped = time.monotonic()
    for watch in (whole, model):
        watch.wait_for(NOT_SERVING)
    assert time.monotonic() - stopped < STOPPED_S
    assert states(server) == {"index": "UNAVAILABLE", "status": "UNAVAILABLE", "ready": False}
    server.kill("worker", signal.SIGCONT)
    for watch in (whole, model):
        watch.wait_for(SERVING)
        watch.close()
    assert ask(server, 1.0) == [2.0]
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 0


def test_a_model_that_kills_workers_while_it_loads_is_left_out_and_the_others_serve(
    tmp_path: Path,
) -> None:
    repository = models.repository(
        tmp_path / "models", {DEADLY: models.scale(3.0), "scaled": models.scale(2.0)}
    )
    flags = ("--fronts", "1", "--strict-readiness", "false")
    with split_process(repository, *flags, module=FAULTY) as server:
        assert ask(server, 1.0) == [2.0]
        said = [json.loads(line) for line in list(server.process.lines)]
        assert [e["model"] for e in said if e["message"] == "a model is left out"] == [DEADLY]
        assert server.metrics()['inferd_restarts_total{process="worker"}'] >= LOADS
        with server.channel() as channel:
            stub = GRPCInferenceServiceStub(channel)
            index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE).models
            assert {(m.name, m.state, m.reason) for m in index} == {
                (DEADLY, "UNAVAILABLE", LEFT_OUT),
                ("scaled", "READY", ""),
            }
            (repository / DEADLY / "1" / FORGIVEN).touch()
            load = oip.RepositoryModelLoadRequest(model_name=DEADLY)
            stub.RepositoryModelLoad(load, timeout=PATIENCE)
            answer = stub.ModelInfer(infer_request(DEADLY, rows(1.0)), timeout=PATIENCE)
            assert arrays(answer)["OUTPUT0"][0, 0] == 3.0


@pytest.mark.slow
def test_a_model_that_kills_a_server_of_one_process_again_and_again_is_left_out_and_named(
    tmp_path: Path,
) -> None:
    """As whoever starts it anew sees it, such as systemd."""
    repository = models.repository(
        tmp_path / "models", {DEADLY: models.scale(3.0), "scaled": models.scale(2.0)}
    )
    flags = ("--processes", "threads", "--model-repository", str(repository))
    flags += ("--strict-readiness", "false", "--verdict-store", str(tmp_path / "rows"))
    for _ in range(LOADS):
        with Process(*flags, module=FAULTY) as process:
            assert process.exit_code() == -signal.SIGSEGV
    with Process(*flags, module=FAULTY) as process:
        where = process.wait_for("listening")
        assert process.wait_for("a server ended while it loaded a model")["model"] == DEADLY
        process.wait_for("ready")
        server = Split(process, where)
        assert ask(server, 1.0) == [2.0]
        (repository / DEADLY / "1" / FORGIVEN).touch()
        with server.channel() as channel:
            stub = GRPCInferenceServiceStub(channel)
            index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE).models
            assert {(m.name, m.reason) for m in index} == {(DEADLY, LEFT_OUT), ("scaled", "")}
            load = oip.RepositoryModelLoadRequest(model_name=DEADLY)
            stub.RepositoryModelLoad(load, timeout=PATIENCE)
        process.terminate()
        assert process.exit_code() == 0
    assert not list((tmp_path / "rows" / "loading").iterdir())


def test_a_worker_that_hangs_in_an_engine_is_found_by_a_trial_and_replaced(
    tmp_path: Path,
) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--fronts", "2", "--canary-interval-s", "0.5", "--hang-timeout-s", "1")
    with split_process(repository, *flags, module=FAULTY) as server:
        model, live = Readiness(server, "scaled"), Readiness(server, "liveness")
        model.wait_for(SERVING)
        live.wait_for(SERVING)
        # It hangs the first worker, and the second one answers it.
        assert ask(server, HANGS_ONCE) == [2 * HANGS_ONCE]
        model.wait_for(NOT_SERVING)
        model.wait_for(SERVING)
        assert "answers nobody" in server.process.wait_for("killed")["why"]
        tried = 'inferd_canary_runs_total{model="scaled",outcome="late",version="1"}'
        assert server.metrics()[tried] >= 1
        # No caller's request.
        assert server.metrics()['inferd_requests_total{code="OK",model="scaled",version="1"}'] == 1
        model.close()
        live.close()


def test_liveness_fails_when_no_worker_comes_back(tmp_path: Path) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--fronts", "1", "--repair-timeout-s", "0.5", "--hang-timeout-s", "0")
    with split_process(repository, *flags, module=FAULTY) as server:
        live = Readiness(server, "liveness")
        live.wait_for(SERVING)
        server.kill("worker", signal.SIGSTOP)
        live.wait_for(NOT_SERVING)
        with server.channel() as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert not stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
            model = oip.ModelReadyRequest(name="scaled")
            assert not stub.ModelReady(model, timeout=PATIENCE).ready
        server.kill("worker", signal.SIGCONT)
        live.wait_for(SERVING)
        live.close()


@pytest.mark.parametrize("processes", ["inline", "threads"])
def test_an_engine_that_is_lost_in_one_process_ends_it_with_a_code_of_its_own(
    tmp_path: Path, processes: str
) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--processes", processes)
    with ready_process(repository, *flags, module=FAULTY) as (process, where):
        error = failure(lambda: ask(Split(process, where), LOSES_ONCE))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert process.exit_code() == EXIT_CODE
        assert (
            "illegal memory access"
            in process.wait_for("the engine failed for good: the process ends")["error"]
        )


def test_the_processor_serves_where_workers_on_the_gpu_end_again_and_again(tmp_path: Path) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--fronts", "1", "--plan-store", str(tmp_path / "plans"))
    with split_process(repository, *flags, module=FAULTY) as server:
        assert ask(server, 1.0) == [2.0]
        with server.channel() as channel:
            stub = ServerServiceStub(channel)
            (model,) = stub.Status(StatusRequest(), timeout=PATIENCE).models
        assert model.engine == "onnxruntime/CPUExecutionProvider"
        assert model.engine_reason == (
            f"the GPU: {FAILURES_ON_GPU} worker processes in a row ended before they served"
        )
        assert model.plan_state == "FALLBACK"
        restarts = server.metrics()['inferd_restarts_total{process="worker"}']
        assert restarts == FAILURES_ON_GPU
