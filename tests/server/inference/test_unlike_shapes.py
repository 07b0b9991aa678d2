"""Requests of unlike shapes at one model: none waits or is refused for another's, everywhere."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ServerLiveRequest

from tests import models
from tests.server.inference.test_company import arranged
from tests.server.serving import PATIENCE, Running, arrays, infer_request, metrics_text

WAITS = "max_batch_size: 4\npreferred_batch_size: 4\nmax_queue_delay_ms: 60000\n"
"""A batch that is not full waits longer than any test."""
DEAR = 40
"""Columns of a request that takes so many times as long as one of one column."""
EVERYWHERE = pytest.mark.parametrize("arrangement", ["threads", "inline", "split"])


def of_width(width: int, name: str = "free") -> ModelInferRequest:
    return infer_request(name, {"INPUT0": np.ones((1, width), np.float32)})


def send(server: Running, width: int, count: int) -> list[grpc.Future]:
    # Without a deadline, which would end the wait for company.
    return [server.stub.ModelInfer.future(of_width(width)) for _ in range(count)]


def answered(calls: list[grpc.Future], width: int) -> bool:
    doubled = np.full((1, width), 2, np.float32)
    answers = [arrays(call.result(PATIENCE))["OUTPUT0"] for call in calls]
    return all(np.array_equal(answer, doubled) for answer in answers)


@EVERYWHERE
def test_a_full_batch_runs_while_a_request_of_another_shape_waits_for_company(
    tmp_path: Path, arrangement: str
) -> None:
    folder = models.repository(tmp_path, {"free": models.free_dims()}, {"free": WAITS})
    with arranged(arrangement, folder) as server:
        first = send(server, 3, 1)
        for _ in range(3):
            assert answered(send(server, 5, 4), 5)
        assert not first[0].done()
        assert answered(first + send(server, 3, 3), 3)


@EVERYWHERE
def test_trials_run_while_a_request_waits_for_company(tmp_path: Path, arrangement: str) -> None:
    folder = models.repository(tmp_path, {"free": models.free_dims()}, {"free": WAITS})
    with arranged(arrangement, folder, canary_interval_s=0.05) as server:
        first = send(server, 3, 1)
        count = trials(server)
        for _ in range(2000):
            if trials(server) > count + 2:
                break
        else:
            pytest.fail("no trial ended")
        assert not first[0].done()
        assert answered(first + send(server, 3, 3), 3)


def trials(server: Running) -> int:
    """Return how many of the server's own inferences ended well."""
    lines = metrics_text(server.metrics_port).splitlines()
    return sum(int(float(line.split()[1])) for line in lines if 'outcome="ok"' in line)


@pytest.mark.parametrize("arrangement", ["threads", "split"])
def test_what_runs_of_one_shape_cost_refuses_nobody_of_a_cheap_one(
    tmp_path: Path, arrangement: str
) -> None:
    proto = models.rounds_by_width(20_000)
    folder = models.repository(tmp_path, {"free": proto}, {"free": "max_batch_size: 1\n"})
    with arranged(arrangement, folder) as server:
        for _ in range(2):
            cost = seconds(server, DEAR)
            for _ in range(3):
                server.stub.ModelInfer(of_width(1), timeout=cost * 0.9)


def seconds(server: Running, width: int) -> float:
    """Return what a request takes."""
    began = time.monotonic()
    server.infer(of_width(width))
    took = time.monotonic() - began
    # An engine's own thread lets the rows go after the answer.
    while server.server is not None and server.server.repository.resolve("free", "").arena.rows:
        server.stub.ServerLive(ServerLiveRequest(), timeout=PATIENCE)
    return took
