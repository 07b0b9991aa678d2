from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd_client import Client

from tests.client.streams import Run, run_asyncio, run_sync
from tests.fakes.oip_server import OipServer


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as server:
        yield server


@pytest.fixture
def client(server: OipServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


@pytest.fixture(params=[run_sync, run_asyncio], ids=["sync", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen
