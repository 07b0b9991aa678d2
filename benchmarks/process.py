"""A server of ours as a process, and the small request that most benchmarks send it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_client.requests import Request, build


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that is ready."""

    url: str
    metrics_port: int
    pid: int


@contextmanager
def serving(
    repository: Path,
    flags: Sequence[str] = (),
    python: str = sys.executable,
    module: str = "inferd_server",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Start `inferd serve` on free ports, wait until it is ready, and stop it by its pid.

    Args:
        repository: the folder of models.
        flags: further flags.
        python: the interpreter whose environment has the server.
        module: of the command.
        environment: its variables; None: those of this process.

    Raises:
        RuntimeError: it ended before it was ready.
    """
    command = [python, "-m", module, "--model-repository", str(repository)]
    ports = ["--grpc-port", "0", "--metrics-port", "0", "--log-format", "json"]
    server = subprocess.Popen(
        [*command, *ports, *flags], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        listening = _wait(server, "listening")
        _wait(server, "ready")
        # Nobody reads the log any further, and a full pipe would block the server.
        Thread(target=_discard, args=(server,), daemon=True).start()
        url = f"{listening['host']}:{listening['grpc_port']}"
        yield Serving(url, listening["metrics_port"], server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def _wait(server: subprocess.Popen[str], message: str) -> dict[str, int]:
    assert server.stderr is not None
    for line in server.stderr:
        event: dict[str, int] = json.loads(line)
        if event["message"] == message:
            return event
    raise RuntimeError(f"the server ended before it was {message}")


def _discard(server: subprocess.Popen[str]) -> None:
    assert server.stderr is not None
    for _ in server.stderr:
        pass


def digits_request(model: str = "digits") -> ModelInferRequest:
    """Return a request for one image of the shipped digits model, or of a copy of it."""
    image = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    return build(Request(model, {"image": image}))
