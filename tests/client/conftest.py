from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd_client import Client

from tests.fakes.oip_server import OipServer


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as server:
        yield server


@pytest.fixture
def client(server: OipServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client
