"""Server reflection, v1alpha: grpcio-reflection's answers over our calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferd_server.errors import InvalidInput, ShuttingDown
from inferd_server.front.unary import parse_message
from inferd_server.transport.call import Receiver, Stream

SERVICE = reflection.SERVICE_NAME


class Servicer(Protocol):
    """What of grpcio-reflection's servicer is used: a generator of answers."""

    def ServerReflectionInfo(  # noqa: N802 its name
        self, request_iterator: Iterator[Message], context: None
    ) -> Iterator[Message]:
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
        for answer in self._servicer.ServerReflectionInfo(iter((request,)), None):
            self._stream.send((answer.SerializeToString(),))

    def half_closed(self) -> None:
        """End the call."""
        self._stream.finish()

    def drain(self) -> None:
        """End: every request has its answer."""
        self._stream.fail(ShuttingDown("the server stops"))

    def cancel(self) -> None:
        """Nothing is held."""
