"""Processes of a server are killed under load: no wrong answer, nobody waits for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.processes.link.inputs import class_of
from inferd_server.processes.link.layout import LINE

from tests import models
from tests.server.processes.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)
from tests.server.serving import arrays, infer_request, rows

READY_FALSE_S = 1.0
"""What the product promises: within this time readiness tells that the worker is gone."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    served = {"scaled": models.scale(2.0), "summing": models.summing()}
    return models.repository(folder, served, {"summing": models.SUMMING})


@pytest.fixture
def server(repository: Path) -> Iterator[Split]:
    with split_process(repository, "--fronts", "2", "--retry-wait-s", "60") as server:
        yield server
        pids = server.pids().values()
        server.process.terminate()
        assert server.process.exit_code() == 0
    assert not any(lives(pid) for pid in pids)


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def kill_the_worker(server: Split, times: int) -> None:
    readiness = Readiness(server)
    with Callers(server, 8, timeout=60.0) as callers:
        for _ in range(times):
            readiness.wait_for(SERVING)
            callers.answered(20)
            killed = time.monotonic()
            server.kill("worker")
            readiness.wait_for(NOT_SERVING)
            assert time.monotonic() - killed < READY_FALSE_S
            # While there is no worker, or no model in it yet.
            with Callers(server, 8, timeout=60.0) as late:
                late.answered(8)
            assert (late.wrong, set(late.codes)) == ([], {"OK"})
        readiness.wait_for(SERVING)
        callers.answered(20)
    readiness.close()
    assert callers.wrong == []
    assert set(callers.codes) == {"OK"}
    assert nothing_in_use(server)


def nothing_in_use(server: Split) -> bool:
    """No request holds memory, and only lanes of the one shape that was sent are set aside."""
    found = server.metrics()
    lanes = 2 * class_of(1024 * 4 * 4 + LINE)
    return found["inferd_slots_in_use"] == 0 and found["inferd_input_bytes_held"] <= lanes


def test_a_killed_worker_costs_nobody_a_request_sent_before_or_after(server: Split) -> None:
    kill_the_worker(server, 4)
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_is_killed_a_hundred_times(server: Split) -> None:
    kill_the_worker(server, 100)


def test_steps_of_a_sequence_whose_worker_is_killed_are_answered_in_order_or_told_the_end(
    server: Split,
) -> None:
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        sent = [step(place) for place in range(500)]
        answers = stub.ModelStreamInfer(iter(sent), timeout=60.0)
        found = [next(answers)]
        server.kill("worker")
        found += answers
        good = [arrays(answer.infer_response) for answer in found if not answer.error_message]
        told = [answer.error_message for answer in found if answer.error_message]
        # As many as were answered, each on the one before it, and then none.
        assert [one["OUTPUT0"][0, 0] for one in good] == [n + 1.0 for n in range(len(good))]
        assert all(not answer.error_message for answer in found[: len(good)])
        assert len(found) == 500
        assert all("sequence" in text or "worker" in text for text in told), set(told)
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        readiness.close()


def step(place: int) -> ModelInferRequest:
    """Return a step of one sequence, which the first one starts."""
    request = infer_request("summing", rows(1.0))
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["sequence_start"].bool_param = not place
    return request


def kill_fronts(server: Split, times: int) -> None:
    with Callers(server) as callers:
        for turn in range(times):
            callers.answered(20)
            pid = server.kill(f"front-{turn % 2}")
            assert server.process.wait_for("lost")["pid"] == pid
            server.process.wait_for("started")
        callers.answered(50)
    assert callers.wrong == []
    assert set(callers.codes) <= {"OK", "UNAVAILABLE"}
    assert nothing_in_use(server)


def test_a_killed_front_costs_nobody_a_wrong_answer_or_a_hung_call(server: Split) -> None:
    kill_fronts(server, 4)
    assert server.metrics()['inferd_restarts_total{process="front"}'] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fronts_that_are_killed_a_hundred_times(server: Split) -> None:
    kill_fronts(server, 100)
