from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, TensorInfo
from inferd_client.errors import Unimplemented
from inferd_client.information import (
    Phase,
)

from tests.client.answers import ANSWERS, CONFIG, METADATA, NONE, STATISTICS
from tests.fakes.oip_server import OipServer


@pytest.mark.parametrize(("method", "arguments", "rpc", "answer", "expected"), ANSWERS)
def test_client_returns_plain_values(
    server: OipServer,
    client: Client,
    method: str,
    arguments: dict[str, Any],
    rpc: str,
    answer: Any,
    expected: Any,
) -> None:
    server.answers[rpc] = answer
    assert getattr(client, method)(**arguments) == expected


@pytest.mark.parametrize(("method", "arguments", "rpc", "answer", "expected"), ANSWERS)
def test_asyncio_client_returns_the_same(
    server: OipServer,
    method: str,
    arguments: dict[str, Any],
    rpc: str,
    answer: Any,
    expected: Any,
) -> None:
    server.answers[rpc] = answer

    async def scenario() -> Any:
        async with AsyncClient(server.address) as client:
            return await getattr(client, method)(**arguments)

    assert asyncio.run(scenario()) == expected


@pytest.mark.parametrize(
    ("method", "rpc", "answer", "field"),
    [
        ("load", "RepositoryModelLoad", pb.RepositoryModelLoadResponse(), "model_name"),
        ("unload", "RepositoryModelUnload", pb.RepositoryModelUnloadResponse(), "model_name"),
        ("metadata", "ModelMetadata", METADATA, "name"),
        ("config", "ModelConfig", CONFIG, "name"),
        ("statistics", "ModelStatistics", STATISTICS, "name"),
        ("ready", "ModelReady", pb.ModelReadyResponse(), "name"),
    ],
)
def test_model_asked_for_is_the_model_named(
    server: OipServer, client: Client, method: str, rpc: str, answer: Any, field: str
) -> None:
    server.answers[rpc] = answer
    getattr(client, method)("digits")
    assert getattr(server.seen, field) == "digits"


def test_index_can_be_limited_to_what_is_ready(server: OipServer, client: Client) -> None:
    server.answers["RepositoryIndex"] = pb.RepositoryIndexResponse()
    client.models(ready_only=True)
    assert server.seen.ready


def test_server_without_a_method_is_reported(client: Client) -> None:
    with pytest.raises(Unimplemented):
        client.status()


def test_phase_knows_its_mean() -> None:
    assert Phase(4, 8_000_000_000).mean_seconds == 2.0
    assert NONE.mean_seconds == 0.0


def test_tensor_info_knows_its_dtype() -> None:
    assert TensorInfo("x", "INT64", (None,)).dtype == np.dtype("<i8")
