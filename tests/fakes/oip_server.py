"""An Open Inference Protocol server on a real socket that does what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc
from inferd.oip.v2 import inference_pb2 as pb
from inferd.oip.v2 import inference_pb2_grpc
from inferd.v1 import server_pb2_grpc
from inferd_client import MAX_MESSAGE_BYTES
from inferd_client.connection import options

Infer = Callable[[pb.ModelInferRequest], pb.ModelInferResponse]
Failure = tuple[grpc.StatusCode, str, str]
StreamInfer = Callable[
    [Iterator[pb.ModelInferRequest]],
    Iterable[pb.ModelStreamInferResponse],
]


def echo(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Answer every input as an output of the same name."""
    response = pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=request.model_version or "1",
        id=request.id,
        raw_output_contents=request.raw_input_contents,
    )
    response.parameters.MergeFrom(request.parameters)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


def echo_each(requests: Iterator[pb.ModelInferRequest]) -> Iterator[pb.ModelStreamInferResponse]:
    """Answer each request of a stream in turn."""
    for request in requests:
        yield pb.ModelStreamInferResponse(infer_response=echo(request))


def _canned(method: str) -> Callable[[OipServer, Any, grpc.ServicerContext], Any]:
    """Return a handler that gives the test's answer, or the next one of an iterator."""

    def handler(server: OipServer, request: Any, context: grpc.ServicerContext) -> Any:
        server.begin(request, context)
        if method not in server.answers:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} has no answer")
        answer = server.answers[method]
        return next(answer) if isinstance(answer, Iterator) else answer

    return handler


class OipServer(
    inference_pb2_grpc.GRPCInferenceServiceServicer, server_pb2_grpc.ServerServiceServicer
):
    """Echoes by default. `answers` holds canned responses by method name.

    `fail` makes every call end with that code, message and error name, `fail_infer` every
    ModelInfer; `release` is set by a test to let calls of `hold` go on; `seen` and
    `metadata` are those of the last call.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.infer: Infer = echo
        self.stream_infer: StreamInfer = echo_each
        self.answers: dict[str, Any] = {}
        self.fail: Failure | None = None
        self.fail_infer: Failure | None = None
        self.held = threading.Event()
        self.release = threading.Event()
        self.seen: Any = None
        self.metadata: dict[str, str | bytes] = {}
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=options(MAX_MESSAGE_BYTES)
        )
        self._add_services()
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.stop(grace=None).wait()

    def _add_services(self) -> None:
        add_inference = inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
        add_server = server_pb2_grpc.add_ServerServiceServicer_to_server
        add_inference(self, self._server)  # type: ignore[no-untyped-call]
        add_server(self, self._server)  # type: ignore[no-untyped-call]

    def hold(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Answer once the test sets `release`."""
        self.held.set()
        self.release.wait()
        return echo(request)

    def begin(self, request: Any, context: grpc.ServicerContext) -> None:
        """Remember the call, and fail it if the test said so."""
        self.seen = request
        self.metadata = dict(context.invocation_metadata())
        unary = isinstance(request, pb.ModelInferRequest)
        failure = (self.fail_infer if unary else None) or self.fail
        if failure is not None:
            code, message, name = failure
            context.set_trailing_metadata((("inferd-error", name),) if name else ())
            context.abort(code, message)

    def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        self.begin(request, context)
        return self.infer(request)

    def ModelStreamInfer(  # noqa: N802
        self, request_iterator: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        self.begin(None, context)
        yield from self.stream_infer(request_iterator)

    ServerLive = _canned("ServerLive")
    ServerReady = _canned("ServerReady")
    ModelReady = _canned("ModelReady")
    ServerMetadata = _canned("ServerMetadata")
    ModelMetadata = _canned("ModelMetadata")
    ModelConfig = _canned("ModelConfig")
    ModelStatistics = _canned("ModelStatistics")
    RepositoryIndex = _canned("RepositoryIndex")
    RepositoryModelLoad = _canned("RepositoryModelLoad")
    RepositoryModelUnload = _canned("RepositoryModelUnload")
    Status = _canned("Status")
