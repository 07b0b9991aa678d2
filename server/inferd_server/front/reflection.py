"""Server reflection: grpcio-reflection's answers over our calls.

It has v1alpha; the messages of v1 have the same fields, so both are answered alike. Only
v1alpha is listed, because the description of v1 is not here to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferd_server.errors import InvalidInput, ShuttingDown
from inferd_server.front.unary import parse_message
from inferd_server.transport.call import Receiver, Stream

SERVICE = reflection.SERVICE_NAME
SERVICE_V1 = "grpc.reflection.v1.ServerReflection"


class Servicer(Protocol):
    """What of grpcio-reflection's servicer is used: a generator of answers."""

    def ServerReflectionInfo(  # noqa: N802 its name
        self, request_iterator: Iterator[Message], context: None
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer every request."""


class Reflection:
    """Handler of ServerReflectionInfo."""

    def __init__(self, services: Sequence[str]) -> None:
        servicer = reflection.ReflectionServicer([*services, SERVICE])
        # Its stubs ask for a context, which its code does not use.
        self._servicer = cast(Servicer, servicer)

    def __call__(self, stream: Stream) -> Receiver:
        """Take a new stream."""
        return ReflectionReceiver(self._servicer, stream)


class ReflectionReceiver:
    """One reflection call: each request has one answer."""

    def __init__(self, servicer: Servicer, stream: Stream) -> None:
        self._servicer = servicer
        self._stream = stream

    def message(self, data: bytes) -> None:
        """Answer one request."""
        try:
            request = parse_message(reflection_pb2.ServerReflectionRequest, data)
        except InvalidInput as error:
            self._stream.fail(error)
            return
        for answer in self._servicer.ServerReflectionInfo(iter((findable(request),)), None):
            answer.original_request.CopyFrom(request)
            self._stream.send((answer.SerializeToString(),))

    def half_closed(self) -> None:
        """End the call."""
        self._stream.finish()

    def drain(self) -> None:
        """End: every request has its answer."""
        self._stream.fail(ShuttingDown("the server stops"))

    def cancel(self) -> None:
        """Nothing is held."""


def findable(
    request: reflection_pb2.ServerReflectionRequest,
) -> reflection_pb2.ServerReflectionRequest:
    """Ask for the service where a method is asked for: Python's pool finds no methods."""
    service, _, method = request.file_containing_symbol.rpartition(".")
    try:
        methods = descriptor_pool.Default().FindServiceByName(service).methods_by_name
    except KeyError:
        return request
    if method not in methods:
        return request
    return reflection_pb2.ServerReflectionRequest(host=request.host, file_containing_symbol=service)
