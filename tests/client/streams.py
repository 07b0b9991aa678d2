"""Runs a stream with either client, so that a test holds for both."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable

from inferd_client import AsyncClient, Client, Request, StreamItem

from tests.fakes.oip_server import OipServer

Run = Callable[..., list[StreamItem]]


def run_sync(
    server: OipServer,
    requests: Iterable[Request],
    *,
    limit: int = 64,
    count: int | None = None,
    timeout: float = math.inf,
) -> list[StreamItem]:
    with Client(server.address) as client:
        items = client.stream(requests, max_in_flight=limit, timeout=timeout)
        return list(itertools.islice(items, count))


def run_asyncio(
    server: OipServer,
    requests: Iterable[Request],
    *,
    limit: int = 64,
    count: int | None = None,
    timeout: float = math.inf,
) -> list[StreamItem]:
    async def scenario() -> list[StreamItem]:
        items: list[StreamItem] = []
        async with AsyncClient(server.address) as client:
            async for item in client.stream(requests, max_in_flight=limit, timeout=timeout):
                items.append(item)
                if len(items) == count:
                    break
        return items

    return asyncio.run(scenario())


def numbered(count: int) -> list[Request]:
    return [Request("m", {"x": [index]}, id=f"r{index}") for index in range(count)]
