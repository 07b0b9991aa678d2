"""A server of several processes, whose processes can be killed, under callers that check."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests.server.lifecycle.process import PATIENCE, Process, ready_process
from tests.server.serving import arrays, infer_request, rows, samples

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
# A connection of its own, and soon a new one when it is lost.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200))


class Split:
    """A server with front processes and a worker process."""

    def __init__(self, process: Process, where: dict[str, Any]) -> None:
        self.process = process
        self.address = f"127.0.0.1:{where['grpc_port']}"
        self._metrics_port = where["metrics_port"]

    def pids(self) -> dict[str, int]:
        """Return the process ids by name, of those that started last."""
        entries = [json.loads(line) for line in list(self.process.lines)]
        return {e["child"]: e["pid"] for e in entries if e["message"] == "started"}

    def kill(self, child: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to one of the processes and return its id."""
        pid = self.pids()[child]
        os.kill(pid, number)
        return pid

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, OPTIONS)

    def metrics(self) -> dict[str, float]:
        """Return the samples of /metrics by name and labels."""
        return samples(self._metrics_port)


@contextmanager
def split_process(
    repository: Path,
    *flags: str,
    module: str = "inferd_server",
    environment: dict[str, str] | None = None,
) -> Iterator[Split]:
    """Start a server of several processes and wait until it is ready."""
    # Trials would be counted with a test's own requests; its flags come last and win.
    many = ("--processes", "split", "--canary-interval-s", "0", *flags)
    ready = ready_process(repository, *many, module=module, environment=environment)
    with ready as (process, where):
        yield Split(process, where)


class Readiness:
    """Follows what health tells, over connections that are made anew when they are lost."""

    def __init__(self, server: Split, service: str = "") -> None:
        self._service = service
        self._channel = server.channel()
        self._stub = HealthStub(self._channel)
        self._stream = self._watch()

    def wait_for(self, status: int) -> None:
        """Return once health tells this status; None stands for a lost connection."""
        while True:
            try:
                if next(self._stream).status == status:
                    return
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                self._stream = self._watch()

    def close(self) -> None:
        self._stream.cancel()
        self._channel.close()

    def _watch(self) -> Any:
        # It lives as long as the test does, whose own limit ends it.
        return self._stub.Watch(HealthCheckRequest(service=self._service), wait_for_ready=True)


class Callers:
    """Threads that send requests all the time and check every answer."""

    def __init__(
        self, server: Split, count: int = 6, timeout: float = PATIENCE / 2, model: str = "scaled"
    ) -> None:
        self._server = server
        self._model = model
        self._timeout = timeout
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "a caller hangs"

    def answered(self, count: int) -> None:
        """Wait until so many more requests were answered well."""
        wanted = self.codes["OK"] + count
        waiting = threading.Event()
        for _ in range(1000):
            if self.codes["OK"] >= wanted:
                return
            waiting.wait(0.02)
        raise AssertionError(f"no more answers: {self.codes}")

    def _call(self, index: int) -> None:
        generator = np.random.default_rng(index)
        with self._server.channel() as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                values = generator.integers(0, 1000, generator.integers(1, 5)).astype(float)
                self._one(stub, values.tolist())

    def _one(self, stub: GRPCInferenceServiceStub, values: list[float]) -> None:
        request = infer_request(self._model, rows(*values), ident=str(values))
        try:
            answer = stub.ModelInfer(request, timeout=self._timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            self._count(error.code().name, f"{error.code().name}: {error.details()}")
            return
        got = arrays(answer)["OUTPUT0"][:, 0].tolist()
        right = got == [2 * value for value in values] and answer.id == str(values)
        self._count("OK", "" if right else f"{values} gave {got} for {answer.id}")

    def _count(self, code: str, problem: str) -> None:
        with self._lock:
            self.codes[code] += 1
            if problem and code != "UNAVAILABLE":
                self.wrong.append(problem)
