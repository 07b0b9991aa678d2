"""Processes are killed and stopped at random, among callers that misbehave, for minutes.

Nobody gets a wrong answer, no call outlives its deadline, readiness is true within a second, and
nothing is kept. The same seed makes the same choices; what they meet differs from run to run.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.processes.link.inputs import class_of
from inferd_server.processes.link.layout import LINE

from tests import models
from tests.chaos.nuisances import MAX_MESSAGE_BYTES, Nuisance
from tests.server.processes.split import (
    NOT_SERVING,
    SERVING,
    Callers,
    Readiness,
    Split,
    split_process,
)
from tests.server.processes.test_killed import READY_FALSE_S
from tests.server.processes.test_soak import weight
from tests.server.serving import arrays, infer_request, rows

SEED = int(os.environ.get("INFERD_CHAOS_SEED", "1"))
ACTIONS = int(os.environ.get("INFERD_CHAOS_ACTIONS", "60"))
LONGEST_STOP_S = 0.5
MAX_ROWS = 1 << 16
ANSWER_S = 10.0
FLAT = 1.2
"""What the server may weigh at the end, as a share of what it weighed after the first half."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + 30 * ACTIONS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Split]:
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)})
    # Room for all that streams bring while the worker is stopped: full queues are refusals.
    room = ("--max-queue-rows", str(MAX_ROWS))
    largest = ("--max-message-bytes", str(MAX_MESSAGE_BYTES))
    with split_process(folder, "--fronts", "2", *room, *largest) as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


class Chaos:
    """Does something to the processes of a server, and waits until it is whole again."""

    def __init__(self, server: Split, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)

    def act(self) -> None:
        self._random.choice((self._kill_worker, self._kill_front, self._stop))()
        assert answers(self._server)

    def _kill_worker(self) -> None:
        readiness = Readiness(self._server)
        readiness.wait_for(SERVING)
        began = time.monotonic()
        self._server.kill("worker")
        readiness.wait_for(NOT_SERVING)
        assert time.monotonic() - began < READY_FALSE_S
        readiness.wait_for(SERVING)
        readiness.close()

    def _kill_front(self) -> None:
        name = self._random.choice(("front-0", "front-1"))
        pid = self._server.kill(name)
        while self._server.process.wait_for("lost")["pid"] != pid:
            pass
        while self._server.process.wait_for("started")["child"] != name:
            pass

    def _stop(self) -> None:
        name = self._random.choice(("worker", "front-0", "front-1"))
        pid = self._server.kill(name, signal.SIGSTOP)
        try:
            if name == "worker":
                assert lives(self._server)
            threading.Event().wait(self._random.random() * LONGEST_STOP_S)
        finally:
            os.kill(pid, signal.SIGCONT)


def answers(server: Split) -> bool:
    """True if a request is answered now: the server says that it is ready."""
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(
            infer_request("scaled", rows(7.0)), timeout=ANSWER_S, wait_for_ready=True
        )
    return arrays(answer)["OUTPUT0"].tolist() == [[14.0] * 4]


def lives(server: Split) -> bool:
    """True if a front tells so within a second though the worker does nothing."""
    with server.channel() as channel:
        grpc.channel_ready_future(channel).result(ANSWER_S)
        asked = HealthCheckRequest(service="liveness")
        return bool(HealthStub(channel).Check(asked, timeout=1.0).status == SERVING)


def descriptors(server: Split) -> int:
    """Return how many files the supervisor has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def held(server: Split) -> float:
    """Return the bytes of inputs that are held once nothing is in flight any more."""
    for _ in range(100):
        found = server.metrics()
        if not found["inferd_slots_in_use"]:
            return found["inferd_input_bytes_held"]
        # What streams brought that were given up is still being run.
        threading.Event().wait(0.1)
    raise AssertionError(f"{found['inferd_slots_in_use']} slots are never given back")


def half(server: Split, chaos: Chaos, seed: int) -> None:
    """Do half of it, and check everybody."""
    with Callers(server, 3) as callers, Nuisance(server, seed) as nuisance:
        for _ in range(ACTIONS // 2):
            chaos.act()
            callers.answered(20)
    assert callers.wrong == []
    assert nuisance.wrong == []
    assert nuisance.codes["INVALID_ARGUMENT"] > 0
    assert nuisance.codes["RESOURCE_EXHAUSTED"] > 0


def test_chaos_costs_nobody_a_wrong_answer_and_leaves_nothing_behind(server: Split) -> None:
    chaos = Chaos(server, SEED)
    half(server, chaos, SEED)
    held(server)
    before = weight(server), descriptors(server)
    half(server, chaos, SEED + 1)
    # Each front keeps the lane of the one shape that was sent.
    assert held(server) <= 2 * class_of(MAX_ROWS * 4 * 4 + LINE)
    assert weight(server) < FLAT * before[0]
    assert descriptors(server) <= before[1]
