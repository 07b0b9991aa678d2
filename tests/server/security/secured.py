"""A served model behind certificates and tokens, and callers of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.v1.feedback_pb2 import FeedbackRequest, FeedbackResponse, PredictionLabels
from inferd.v1.feedback_pb2_grpc import FeedbackServiceStub
from inferd_server.transport.status import DETAILS_KEY

from tests import models
from tests.server.serving import PATIENCE, infer_request, rows
from tests.server.transport.client import connect

MODEL = "scaled"


def repository(folder: Path) -> Path:
    """Write a repository of one model."""
    return models.repository(folder, {MODEL: models.scale(2.0)})


class Caller:
    """Calls over a connection of its own."""

    def __init__(self, channel: grpc.Channel, token: str | None = None) -> None:
        self.stub = GRPCInferenceServiceStub(channel)
        self.health = HealthStub(channel)
        self.labels = FeedbackServiceStub(channel)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.options = {"timeout": PATIENCE, "metadata": metadata}

    def infer(self) -> oip.ModelInferResponse:
        return self.stub.ModelInfer(infer_request(MODEL, rows(1.0)), **self.options)

    def stream(self, count: int = 1) -> list[oip.ModelStreamInferResponse]:
        requests = [infer_request(MODEL, rows(float(n)), ident=str(n)) for n in range(count)]
        return list(self.stub.ModelStreamInfer(iter(requests), **self.options))

    def read(self) -> oip.ModelMetadataResponse:
        return self.stub.ModelMetadata(oip.ModelMetadataRequest(name=MODEL), **self.options)

    def load(self) -> oip.RepositoryModelLoadResponse:
        request = oip.RepositoryModelLoadRequest(model_name=MODEL)
        return self.stub.RepositoryModelLoad(request, **self.options)

    def log(self) -> oip.LogSettingsResponse:
        return self.stub.LogSettings(oip.LogSettingsRequest(), **self.options)

    def regions(self) -> oip.SystemSharedMemoryStatusResponse:
        return self.stub.SystemSharedMemoryStatus(
            oip.SystemSharedMemoryStatusRequest(), **self.options
        )

    def feedback(self) -> FeedbackResponse:
        forged = FeedbackRequest(predictions=[PredictionLabels(token="forged")])
        return self.labels.Feedback(forged, **self.options)

    def serving(self) -> bool:
        answer = self.health.Check(HealthCheckRequest(), timeout=PATIENCE)
        return bool(answer.status == HealthCheckResponse.SERVING)


@contextmanager
def calling(
    port: int, credentials: grpc.ChannelCredentials | None = None, token: str | None = None
) -> Iterator[Caller]:
    """Connect to this host."""
    with connect(f"127.0.0.1:{port}", credentials) as channel:
        yield Caller(channel, token)


def told(error: grpc.RpcError) -> tuple[str, str]:
    """Return the code of an error and the reason that the server gave for it."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    if details is None:
        return error.code().name, ""
    info = ErrorInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    return error.code().name, info.reason
