"""Minutes of random requests, cancellations and deadlines: nothing is kept, memory stays flat."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import arrays, infer_request
from tests.server.supervisor.split import Split

SECONDS = float(os.environ.get("INFERD_SOAK_S", "150"))
CALLERS = 6
FLAT = 1.15
"""What the server may weigh at the end, as a share of what it weighed half-way."""
EXPECTED = {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
ARRANGEMENTS = {
    "inline": ("--processes", "auto"),
    "threads": ("--processes", "threads"),
    "split": ("--processes", "split", "--fronts", "2"),
    "replicas": ("--processes", "replicas", "--replicas", "2"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 120)]


class Soaking:
    """One caller: random requests one after the other, some given up on."""

    def __init__(self, server: Split, seed: int, until: float) -> None:
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._server = server
        self._until = until
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __call__(self) -> None:
        while time.monotonic() < self._until:
            # Connections come and go, too.
            with self._server.channel() as channel:
                stub = GRPCInferenceServiceStub(channel)
                for _ in range(self._random.randint(1, 400)):
                    self._one(stub)

    def _one(self, stub: GRPCInferenceServiceStub) -> None:
        request, values = self._request()
        timeout = self._random.choice((PATIENCE, PATIENCE, 0.05, 0.002))
        future = stub.ModelInfer.future(request, timeout=timeout)
        if self._random.random() < 0.1:
            future.cancel()
        try:
            answer = future.result()
        except grpc.FutureCancelledError:
            self.codes["CANCELLED"] += 1
        except grpc.RpcError as error:
            self.codes[error.code().name] += 1
        else:
            self.codes["OK"] += 1
            if not np.array_equal(arrays(answer)["OUTPUT0"], values):
                self.wrong.append(request.id)

    def _request(self) -> tuple[ModelInferRequest, np.ndarray]:
        name = self._random.choice(("small", "small", "wide", "text"))
        rows = self._random.randint(1, 8)
        if name == "text":
            values = np.array([[b"x" * self._random.randint(0, 99)]] * rows, dtype=object)
        else:
            width = 4 if name == "small" else self._random.choice((1, 300, 70_000))
            values = self._numbers.random((rows, width)).astype(np.float32)
        # Now and then one that must be refused.
        sent = values if self._random.random() > 0.02 else values[None]
        return infer_request(name, {"INPUT0": sent}, ident=str(self._random.random())), values


@pytest.fixture(params=ARRANGEMENTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Split]:
    served = {
        "small": models.identity("FP32", dims=("batch", 4)),
        "wide": models.identity("FP32", dims=("batch", "size")),
        "text": models.identity("BYTES", dims=("batch", 1)),
    }
    folder = models.repository(tmp_path_factory.mktemp("models"), served)
    with ready_process(folder, *ARRANGEMENTS[request.param]) as (process, where):
        yield Split(process, where)


def weight(server: Split) -> int:
    """Return the bytes of private memory and shared memory that all processes have touched."""
    pids = {server.process.pid, *server.pids().values()}
    return sum(proportional_bytes(pid) for pid in pids)


def proportional_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def test_a_soak_leaves_nothing_behind(server: Split) -> None:
    start = time.monotonic()
    callers = [Soaking(server, seed, start + SECONDS) for seed in range(CALLERS)]
    threads = [threading.Thread(target=caller) for caller in callers]
    for thread in threads:
        thread.start()
    threads[0].join(SECONDS / 2)
    half_way = weight(server)
    for thread in threads:
        thread.join(SECONDS + PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a caller hangs"
    assert [caller.wrong for caller in callers] == [[]] * CALLERS
    codes = sum((caller.codes for caller in callers), Counter())
    assert set(codes) <= EXPECTED, codes
    assert codes["OK"] > codes["CANCELLED"] > 0, codes
    found = server.metrics()
    held = [v for name, v in found.items() if name.startswith(("inferd_slots", "inferd_in_flight"))]
    assert held
    assert set(held) == {0.0}
    assert weight(server) < FLAT * half_way
