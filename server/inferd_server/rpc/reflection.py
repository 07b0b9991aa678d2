"""Server reflection: grpcio-reflection's answers over our calls.

It has v1alpha; the messages of v1 have the same fields, so both are answered alike, and the
description of v1 is that of v1alpha under other names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferd_server.errors import InvalidInput, ShuttingDown
from inferd_server.rpc.handlers import parse_message
from inferd_server.transport.call import Receiver, Stream

SERVICE = reflection.SERVICE_NAME
SERVICE_V1 = "grpc.reflection.v1.ServerReflection"
NAMES_V1 = ("grpc.reflection.v1.", "grpc/reflection/v1/")
"""What symbols and files of v1 begin with."""


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
        names = [service.full_name for service in described]
        pool = pool_of([service.file for service in described])
        self._known = Described(pool, [*names, SERVICE_V1])
        # Apart, because a later grpcio-reflection may bring a description of its own.
        self._v1 = Described(v1_pool(), ())

    def __call__(self, stream: Stream) -> Receiver:
        """Take a new stream."""
        return ReflectionReceiver(self._known, self._v1, stream)


class Described:
    """Descriptions in one pool, and the servicer that answers from them."""

    def __init__(self, pool: DescriptorPool, services: Sequence[str]) -> None:
        self._pool = pool
        # Its stubs ask for a context, which its code does not use.
        self._servicer = cast(Servicer, reflection.ReflectionServicer(services, pool))

    def answers(
        self, request: reflection_pb2.ServerReflectionRequest
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer a request: one answer."""
        found = findable(request, self._pool)
        return self._servicer.ServerReflectionInfo(iter((found,)), None)


class ReflectionReceiver:
    """One reflection call: each request has one answer."""

    def __init__(self, known: Described, v1: Described, stream: Stream) -> None:
        self._known = known
        self._v1 = v1
        self._stream = stream

    def message(self, data: bytes) -> None:
        """Answer one request."""
        try:
            request = parse_message(reflection_pb2.ServerReflectionRequest, data)
        except InvalidInput as error:
            self._stream.fail(error)
            return
        name = request.file_containing_symbol or request.file_by_filename
        described = self._v1 if name.startswith(NAMES_V1) else self._known
        for answer in described.answers(request):
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


def v1_pool() -> DescriptorPool:
    """Return a pool with the description of v1.

    Source: grpc/reflection/v1/reflection.proto differs from v1alpha's in the package alone.
    """
    old = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(old)
    text = text_format.MessageToString(old).replace("v1alpha", "v1")
    new = text_format.Parse(text, FileDescriptorProto())
    new.name = "grpc/reflection/v1/reflection.proto"
    pool = DescriptorPool()
    pool.Add(new)
    return pool
