from __future__ import annotations

import asyncio

import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client
from inferd_client.connection import looks
from inferd_client.errors import DeadlinePassed

from tests.fakes.oip_server import OipServer


def test_waiting_returns_once_the_server_is_ready(server: OipServer, client: Client) -> None:
    answers = [pb.ServerReadyResponse(ready=ready) for ready in (False, False, True)]
    server.answers["ServerReady"] = iter(answers)
    client.wait_until_ready(30)
    assert list(server.answers["ServerReady"]) == []


def test_asyncio_waiting_ends_with_the_timeout(server: OipServer) -> None:
    server.answers["ServerReady"] = pb.ServerReadyResponse(ready=False)

    async def scenario() -> None:
        async with AsyncClient(server.address) as client:
            await client.wait_until_ready(0.05)

    with pytest.raises(DeadlinePassed, match=r"within 0\.05 s"):
        asyncio.run(scenario())


def test_looks_at_an_unready_server_grow_rarer_and_end_in_time() -> None:
    times = iter([0.0, 0.0, 0.05, 0.15, 3.9, 4.0])
    waiting = looks(4.0, lambda: next(times))
    seen = [next(waiting) for _ in range(4)]
    assert [left for left, _ in seen] == pytest.approx([4.0, 3.95, 3.85, 0.1])
    assert [pause for _, pause in seen] == pytest.approx([0.05, 0.1, 0.2, 0.1])
    with pytest.raises(DeadlinePassed):
        next(waiting)


def test_a_proxy_is_not_asked_for_this_very_host(
    server: OipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "no_grpc_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    # Nobody listens there.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.answers["ServerReady"] = pb.ServerReadyResponse(ready=True)
    with Client(server.address) as client:
        assert client.ready(timeout=10)

    async def scenario() -> bool:
        async with AsyncClient(server.address) as client:
            return await client.ready(timeout=10)

    assert asyncio.run(scenario())
