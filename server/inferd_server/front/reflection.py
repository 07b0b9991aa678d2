"""Server reflection: grpcio-reflection's answers over our calls.

It has v1alpha; the messages of v1 have the same fields, so both are answered alike. Only
v1alpha is listed, because the description of v1 is not here to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
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


class Service(Protocol):
    """What of a service's descriptor is used, which has more than one type."""

    @property
    def full_name(self) -> str:
        """Package and name."""

    @property
    def file(self) -> Any:
        """Where it is described."""


class Reflection:
    """Handler of ServerReflectionInfo."""

    def __init__(self, services: Sequence[Service]) -> None:
        itself: Service = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        described = (*services, itself)
        self._pool = pool_of([service.file for service in described])
        names = [service.full_name for service in described]
        # Its stubs ask for a context, which its code does not use.
        self._servicer = cast(Servicer, reflection.ReflectionServicer(names, self._pool))

    def __call__(self, stream: Stream) -> Receiver:
        """Take a new stream."""
        return ReflectionReceiver(self._servicer, stream, self._pool)


class ReflectionReceiver:
    """One reflection call: each request has one answer."""

    def __init__(self, servicer: Servicer, stream: Stream, pool: DescriptorPool) -> None:
        self._servicer = servicer
        self._stream = stream
        self._pool = pool

    def message(self, data: bytes) -> None:
        """Answer one request."""
        try:
            request = parse_message(reflection_pb2.ServerReflectionRequest, data)
        except InvalidInput as error:
            self._stream.fail(error)
            return
        asked = findable(request, self._pool)
        for answer in self._servicer.ServerReflectionInfo(iter((asked,)), None):
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


def pool_of(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """Return one pool with files of any, and what they import: ours are in a pool of their own."""
    pool = DescriptorPool()
    known: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in known:
            return
        known.add(file.name)
        for imported in file.dependencies:
            add(imported)
        pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    return pool


def findable(
    request: reflection_pb2.ServerReflectionRequest, pool: DescriptorPool
) -> reflection_pb2.ServerReflectionRequest:
    """Ask for the service where a method is asked for: Python's pool finds no methods."""
    service, _, method = request.file_containing_symbol.rpartition(".")
    try:
        methods = pool.FindServiceByName(service).methods_by_name
    except KeyError:
        return request
    if method not in methods:
        return request
    return reflection_pb2.ServerReflectionRequest(host=request.host, file_containing_symbol=service)
