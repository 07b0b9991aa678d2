"""What a server answers to each question, and what the clients make of it."""

from __future__ import annotations

from typing import Any

from inferd.oip.v2 import inference_pb2 as pb
from inferd.v1 import server_pb2
from inferd_client import TensorInfo
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
    "plan_state": "BUILDING",
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
