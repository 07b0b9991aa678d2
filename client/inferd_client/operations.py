"""Every call with one request and one answer: its method, its message, how to read it.

`Client` and `AsyncClient` differ only in how they send an Operation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from inferd.oip.v2 import inference_pb2
from inferd.v1 import server_pb2

from inferd_client import readings, requests, results
from inferd_client.information import (
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    ServerMetadata,
    ServerStatus,
)
from inferd_client.requests import Request
from inferd_client.results import Result
from inferd_client.sendable import sendable

Answer = TypeVar("Answer")

# The parameter of requests that belong together and change a state at the server.
SEQUENCE = "sequence_id"


@dataclass(frozen=True, slots=True)
class Operation(Generic[Answer]):
    """One call, not yet sent. `read` takes the method's response message.

    It may be sent twice when the first time got no answer, unless `repeatable` is false.
    """

    method: str
    message: Message
    read: Callable[[Any], Answer]
    repeatable: bool = True


def infer(request: Request) -> Operation[Result]:
    """Run a model once.

    Raises:
        InvalidInput: a tensor or parameter that the protocol cannot carry.
    """
    message = requests.build(request)
    # A sequence would take the second for its next step.
    return Operation("ModelInfer", message, results.read, SEQUENCE not in request.parameters)


def live() -> Operation[bool]:
    """Ask whether the process is able to answer."""
    return Operation("ServerLive", inference_pb2.ServerLiveRequest(), lambda answer: answer.live)


@sendable
def ready(model: str | None, version: str) -> Operation[bool]:
    """Ask whether a model is ready, or without one the server."""
    if model is None:
        asked: Message = inference_pb2.ServerReadyRequest()
        return Operation("ServerReady", asked, lambda answer: answer.ready)
    asked = inference_pb2.ModelReadyRequest(name=model, version=version)
    return Operation("ModelReady", asked, lambda answer: answer.ready)


def server_metadata() -> Operation[ServerMetadata]:
    """Ask who the server is."""
    asked = inference_pb2.ServerMetadataRequest()
    return Operation("ServerMetadata", asked, readings.server_metadata)


@sendable
def metadata(model: str, version: str) -> Operation[ModelMetadata]:
    """Ask for a model's signature."""
    asked = inference_pb2.ModelMetadataRequest(name=model, version=version)
    return Operation("ModelMetadata", asked, readings.model_metadata)


@sendable
def config(model: str, version: str) -> Operation[ModelConfig]:
    """Ask how a model is served."""
    asked = inference_pb2.ModelConfigRequest(name=model, version=version)
    return Operation("ModelConfig", asked, readings.model_config)


@sendable
def statistics(model: str, version: str) -> Operation[tuple[ModelStatistics, ...]]:
    """Ask for the counters of a model, or with an empty name of all."""
    asked = inference_pb2.ModelStatisticsRequest(name=model, version=version)
    return Operation("ModelStatistics", asked, readings.statistics)


@sendable
def models(*, ready_only: bool) -> Operation[tuple[ModelState, ...]]:
    """Ask for the repository's index."""
    asked = inference_pb2.RepositoryIndexRequest(ready=ready_only)
    return Operation("RepositoryIndex", asked, readings.index)


@sendable
def load(model: str) -> Operation[None]:
    """Have a model loaded, or loaded anew."""
    asked = inference_pb2.RepositoryModelLoadRequest(model_name=model)
    return Operation("RepositoryModelLoad", asked, lambda _: None)


@sendable
def unload(model: str) -> Operation[None]:
    """Have a model unloaded."""
    asked = inference_pb2.RepositoryModelUnloadRequest(model_name=model)
    return Operation("RepositoryModelUnload", asked, lambda _: None)


def status() -> Operation[ServerStatus]:
    """Ask for the state of the server, which only inferd itself knows to tell."""
    return Operation("Status", server_pb2.StatusRequest(), readings.status)


@sendable
def drift(model: str, version: str) -> Operation[list[Any]]:
    """Ask how requests differ from the reference of their model, or with an empty name of all."""
    asked = server_pb2.DriftRequest(name=model, version=version)
    return Operation("Drift", asked, lambda answer: json.loads(answer.json))
