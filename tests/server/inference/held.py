"""A served fake engine that is busy for as long as a test wants, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from inferd.oip.v2.inference_pb2 import ServerLiveRequest

from tests.fakes.engine import FakeEngine
from tests.server.serving import PATIENCE, Running, infer_request, rows


def ask(server: Running, *values: float, timeout: float = PATIENCE) -> grpc.Future:
    return server.stub.ModelInfer.future(infer_request("fake", rows(*values)), timeout=timeout)


def occupy(server: Running, engine: FakeEngine) -> grpc.Future:
    """Send a request that holds the engine until `release`."""
    engine.hold()
    future = ask(server, -1.0)
    assert engine.running.wait(PATIENCE)
    return future


def waiting(server: Running, count: int) -> None:
    """Return once the model's queue holds that many rows."""
    await_rows(server, lambda: queued(server) == count)


def await_rows(server: Running, reached: Callable[[], bool]) -> None:
    # Each round trip lets the server's thread work off what came before.
    for _ in range(2000):
        if reached():
            return
        server.stub.ServerLive(ServerLiveRequest(), timeout=PATIENCE)
    raise AssertionError(f"{queued(server)} rows wait")


def queued(server: Running) -> int:
    return server.server.repository.resolve("fake", "").queue.rows


def held_rows(server: Running) -> int:
    return server.server.repository.resolve("fake", "").arena.rows
