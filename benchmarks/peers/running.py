"""A server as a process: started alone, waited for, stopped by its pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from inferd.oip.v2 import inference_pb2 as pb
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.peers.contenders import Contender, Place
from benchmarks.peers.memory import tree
from benchmarks.peers.models import Model

_HOST = "127.0.0.1"
_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 30.0
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Running:
    """A server whose model is ready; `start_s` passed between its start and that."""

    url: str
    pid: int
    start_s: float
    channel: grpc.Channel


@contextmanager
def running(contender: Contender, model: Model, root: Path) -> Iterator[Running]:
    """Start a server with one model, wait until that is ready, and stop it in the end.

    Raises:
        RuntimeError: it ended or took too long; with the end of its output.
    """
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "log").open("w+") as log:
        place = Place(model, root, free_port(), Path(scratch))
        command = contender.command(place)
        environment = {**os.environ, **contender.environment}
        start = time.monotonic()
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=scratch)
        url = f"{_HOST}:{place.port}"
        try:
            _wait_for_port(server, place.port, start + _START_LIMIT_S)
            with grpc.insecure_channel(url) as channel:
                _wait_until_ready(server, channel, model.name, start + _START_LIMIT_S)
                yield Running(url, server.pid, time.monotonic() - start, channel)
        except Exception as error:
            log.seek(0)
            raise RuntimeError(f"{contender.title}: {error}\n{log.read()[-4000:]}") from error
        finally:
            stop(server)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait_for_port(server: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    """Wait by connecting, because a gRPC channel that was refused waits a second."""
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection((_HOST, port)):
            return
        _pause(server, deadline)


def _wait_until_ready(
    server: subprocess.Popen[bytes], channel: grpc.Channel, model: str, deadline: float
) -> None:
    stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    while True:
        with suppress(grpc.RpcError):
            # Of several processes one may have the model before the others do.
            ready = stub.ServerReady(pb.ServerReadyRequest(), timeout=1).ready
            if ready and stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=1).ready:
                return
        _pause(server, deadline)


def _pause(server: subprocess.Popen[bytes], deadline: float) -> None:
    if server.poll() is not None:
        raise RuntimeError(f"it ended with {server.returncode} before it was ready")
    if time.monotonic() > deadline:
        raise RuntimeError(f"it was not ready after {_START_LIMIT_S:g} s")
    time.sleep(_POLL_S)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it started and left behind."""
    pids = tree(server.pid)
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for pid in pids[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
