"""Nothing of a request stays once it is answered, however that was, without garbage collection."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_engines.engine import EngineError
from inferd_server.batching.inline import InlineLoop

from tests.fakes.engine import FakeEngine, quick_engine
from tests.server.inference.held import await_rows, queued, waiting
from tests.server.security.named import entry, written
from tests.server.serving import (
    PATIENCE,
    FakeEngines,
    Running,
    failure,
    infer_request,
    rows,
    running_fake,
)

COUNT = 20
SIZE = 400_000
ROOM = COUNT * SIZE // 4
"""Bytes that may stay: a few requests are still known where the last ones passed."""
ARRANGEMENTS = {
    "aio": {},
    "completion_queue": {"processes": "threads"},
    "inline": {"processes": "inline"},
}
Metadata: TypeAlias = tuple[tuple[str, str], ...]
ALLOWED: Metadata = (("authorization", "Bearer good-token"),)


def large(model: str = "fake", width: int = 4, **parameters: int) -> ModelInferRequest:
    """Return a request with a long id."""
    request = infer_request(model, {"INPUT0": rows(1.0)["INPUT0"][:, :width]}, ident="x" * SIZE)
    for name, number in parameters.items():
        request.parameters[name].int64_param = number
    return request


def one_by_one(server: Running, request: ModelInferRequest, metadata: Metadata = ALLOWED) -> None:
    for _ in range(COUNT):
        future = server.stub.ModelInfer.future(request, timeout=PATIENCE, metadata=metadata)
        future.exception(PATIENCE)


def streamed(server: Running, request: ModelInferRequest, metadata: Metadata = ALLOWED) -> None:
    for _ in range(COUNT // 2):
        answers = server.stub.ModelStreamInfer(
            iter((request, request)), timeout=PATIENCE, metadata=metadata
        )
        if metadata is ALLOWED:
            assert len(list(answers)) == 2
        else:
            assert failure(lambda: next(answers)).code() != grpc.StatusCode.OK  # noqa: B023


def occupied(server: Running, engine: FakeEngine) -> grpc.Future:
    """Send a request that holds the engine until `release`."""
    engine.hold()
    future = server.stub.ModelInfer.future(large(), timeout=PATIENCE, metadata=ALLOWED)
    assert engine.running.wait(PATIENCE)
    return future


def failing(server: Running, engine: FakeEngine, send: Callable[..., None]) -> None:
    for _ in range(COUNT):
        engine.fail(EngineError("no luck"))
    send(server, large())


def cancelled(server: Running, engine: FakeEngine, _: Callable[..., None]) -> None:
    first = occupied(server, engine)
    futures = [
        server.stub.ModelInfer.future(large(), timeout=PATIENCE, metadata=ALLOWED)
        for _ in range(COUNT)
    ]
    waiting(server, COUNT)
    for future in futures:
        future.cancel()
    await_rows(server, lambda: queued(server) == 0)
    engine.release()
    first.result(PATIENCE)


def cancelled_stream(server: Running, engine: FakeEngine, _: Callable[..., None]) -> None:
    first = occupied(server, engine)
    requests = iter([large()] * COUNT)
    answers = server.stub.ModelStreamInfer(requests, timeout=PATIENCE, metadata=ALLOWED)
    waiting(server, COUNT)
    answers.cancel()
    await_rows(server, lambda: queued(server) == 0)
    engine.release()
    first.result(PATIENCE)


def expired(server: Running, engine: FakeEngine, send: Callable[..., None]) -> None:
    first = occupied(server, engine)
    send(server, large(timeout=1000))
    engine.release()
    first.result(PATIENCE)


def out_of_time(server: Running, engine: FakeEngine, _: Callable[..., None]) -> None:
    first = occupied(server, engine)
    futures = [
        server.stub.ModelInfer.future(large(), timeout=0.05, metadata=ALLOWED) for _ in range(COUNT)
    ]
    for future in futures:
        # Late by its own clock, or refused as too late by the server.
        assert future.exception(PATIENCE) is not None
    await_rows(server, lambda: queued(server) == 0)
    engine.release()
    first.result(PATIENCE)


Provoke: TypeAlias = Callable[[Running, FakeEngine, Callable[..., None]], None]
ENDS: dict[str, Provoke] = {
    "answered": lambda server, _, send: send(server, large()),
    "of the wrong shape": lambda server, _, send: send(server, large(width=3)),
    "of an unknown model": lambda server, _, send: send(server, large("other")),
    "failed": failing,
    "with a wrong token": lambda server, _, send: send(
        server, large(), (("authorization", "Bearer wrong"),)
    ),
    "without permission": lambda server, _, send: send(
        server, large(), (("authorization", "Bearer reader-token"),)
    ),
    "without a token": lambda server, _, send: send(server, large(), ()),
}
HELD: dict[str, Provoke] = {
    "cancelled": cancelled,
    "cancelled stream": cancelled_stream,
    "expired": expired,
    "out of time": out_of_time,
}


@contextmanager
def guarded(folder: Path, **options: str) -> Iterator[tuple[Running, FakeEngine]]:
    identities = written(
        folder / "identities.yaml", entry("good", "infer", "read"), entry("reader", "read")
    )
    (folder / "models").mkdir()
    inline = InlineLoop(time.monotonic) if "processes" in options else None
    given = {"identities_file": identities, "anonymous_permissions": "read", **options}
    engines = FakeEngines(FakeEngine if inline is None else quick_engine)
    with running_fake(folder / "models", engines, inline=inline, **given) as served:
        yield served


def left_by(provoke: Callable[[], None]) -> int:
    """Return the bytes that stay of what is provoked, the second time."""
    provoke()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        provoke()
        after, _ = tracemalloc.get_traced_memory()
        return after - before
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("send", [one_by_one, streamed])
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_nothing_stays_of_a_request(
    arrangement: str, how: str, send: Callable[..., None], tmp_path: Path
) -> None:
    with guarded(tmp_path, **ARRANGEMENTS[arrangement]) as (server, engine):
        assert left_by(lambda: ENDS[how](server, engine, send)) < ROOM


@pytest.mark.parametrize("how", HELD)
@pytest.mark.parametrize("arrangement", ["aio", "completion_queue"])
def test_nothing_stays_of_a_request_that_waited(arrangement: str, how: str, tmp_path: Path) -> None:
    with guarded(tmp_path, **ARRANGEMENTS[arrangement]) as (server, engine):
        assert left_by(lambda: HELD[how](server, engine, one_by_one)) < ROOM
