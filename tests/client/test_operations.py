from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd.v1 import server_pb2
from inferd_client import AsyncClient, Client, TensorInfo
from inferd_client.connection import looks
from inferd_client.errors import DeadlinePassed, Unimplemented
from inferd_client.information import (
    BatchStatistics,
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    ModelVersionStatus,
    Phase,
    ServerMetadata,
    ServerStatus,
)

from tests.fakes.oip_server import OipServer

VERSION_STATUS = {
    "name": "digits",
    "version": "2",
    "state": "READY",
    "reason": "",
    "engine": "onnxruntime/CPUExecutionProvider",
    "engine_reason": "no GPU",
    "max_batch_size": 32,
    "batch_reason": "first dimension is free",
    "instances": 1,
}
STATUS = server_pb2.StatusResponse(
    version="0.1.0", transport="aio", uptime_seconds=1.5, ready=True, models=[VERSION_STATUS]
)
METADATA = pb.ModelMetadataResponse(
    name="digits",
    versions=["1", "2"],
    platform="onnx",
    inputs=[{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
    outputs=[{"name": "label", "datatype": "BYTES", "shape": [-1]}],
)
CONFIG = pb.ModelConfigResponse(
    config={
        "name": "digits",
        "platform": "onnx",
        "backend": "onnxruntime",
        "max_batch_size": 32,
        "input": [{"name": "image", "data_type": "TYPE_FP32", "dims": [64]}],
        "output": [{"name": "label", "data_type": "TYPE_STRING", "dims": []}],
        "dynamic_batching": {
            "preferred_batch_size": [8, 16],
            "max_queue_delay_microseconds": 100,
            "default_queue_policy": {"max_queue_size": 256},
        },
        "instance_group": [{"count": 2}],
        "parameters": {"threads": {"string_value": "1"}},
    }
)
STATISTICS = pb.ModelStatisticsResponse(
    model_stats=[
        {
            "name": "digits",
            "version": "2",
            "last_inference": 7,
            "inference_count": 12,
            "execution_count": 3,
            "inference_stats": {"success": {"count": 4, "ns": 8_000_000_000}},
            "batch_stats": [{"batch_size": 4, "compute_infer": {"count": 3, "ns": 9}}],
        }
    ]
)
NONE = Phase(0, 0)

ANSWERS: list[tuple[str, dict[str, Any], str, Any, Any]] = [
    ("live", {}, "ServerLive", pb.ServerLiveResponse(live=True), True),
    ("ready", {}, "ServerReady", pb.ServerReadyResponse(ready=False), False),
    ("ready", {"model": "digits"}, "ModelReady", pb.ModelReadyResponse(ready=True), True),
    (
        "server_metadata",
        {},
        "ServerMetadata",
        pb.ServerMetadataResponse(name="inferd", version="1", extensions=["statistics"]),
        ServerMetadata("inferd", "1", ("statistics",)),
    ),
    (
        "metadata",
        {"model": "digits"},
        "ModelMetadata",
        METADATA,
        ModelMetadata(
            name="digits",
            versions=("1", "2"),
            platform="onnx",
            inputs=(TensorInfo("image", "FP32", (None, 64)),),
            outputs=(TensorInfo("label", "BYTES", (None,)),),
        ),
    ),
    (
        "config",
        {"model": "digits"},
        "ModelConfig",
        CONFIG,
        ModelConfig(
            name="digits",
            platform="onnx",
            backend="onnxruntime",
            max_batch_size=32,
            inputs=(TensorInfo("image", "FP32", (64,)),),
            outputs=(TensorInfo("label", "BYTES", ()),),
            preferred_batch_sizes=(8, 16),
            max_queue_delay_us=100,
            max_queue_size=256,
            instances=2,
            parameters={"threads": "1"},
        ),
    ),
    (
        "statistics",
        {},
        "ModelStatistics",
        STATISTICS,
        (
            ModelStatistics(
                name="digits",
                version="2",
                last_inference_ms=7,
                inference_count=12,
                execution_count=3,
                success=Phase(4, 8_000_000_000),
                fail=NONE,
                queue=NONE,
                compute_input=NONE,
                compute_infer=NONE,
                compute_output=NONE,
                batches=(BatchStatistics(4, NONE, Phase(3, 9), NONE),),
            ),
        ),
    ),
    (
        "models",
        {},
        "RepositoryIndex",
        pb.RepositoryIndexResponse(models=[{"name": "m", "version": "1", "state": "LOADING"}]),
        (ModelState("m", "1", "LOADING", ""),),
    ),
    ("load", {"model": "m"}, "RepositoryModelLoad", pb.RepositoryModelLoadResponse(), None),
    ("unload", {"model": "m"}, "RepositoryModelUnload", pb.RepositoryModelUnloadResponse(), None),
    (
        "status",
        {},
        "Status",
        STATUS,
        ServerStatus(
            version="0.1.0",
            transport="aio",
            uptime_seconds=1.5,
            ready=True,
            draining=False,
            models=(ModelVersionStatus(**VERSION_STATUS),),  # type: ignore[arg-type]
        ),
    ),
]


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


def test_phase_knows_its_mean() -> None:
    assert Phase(4, 8_000_000_000).mean_seconds == 2.0
    assert NONE.mean_seconds == 0.0


def test_tensor_info_knows_its_dtype() -> None:
    assert TensorInfo("x", "INT64", (None,)).dtype == np.dtype("<i8")
