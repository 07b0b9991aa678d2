"""A started transport with a raw channel to it, and handlers that remember their calls."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import grpc
from inferd_server.transport.call import Call, Routes, Stream, Transport

PATIENCE = 10.0
"""Seconds within which anything awaited must have happened."""


@dataclass
class Client:
    """One channel to a transport under test."""

    transport: Transport
    address: str
    channel: grpc.Channel

    def unary(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        return self.channel.unary_unary(path)

    def call(self, path: str, request: bytes = b"", **options: object) -> bytes:
        return self.unary(path)(request, timeout=PATIENCE, **options)  # type: ignore[arg-type]

    def stream(self, path: str, requests: Iterator[bytes]) -> grpc.CallIterator[bytes]:
        return self.channel.stream_stream(path)(requests, timeout=PATIENCE)


Serve = Callable[[Routes], AbstractContextManager[Client]]


def connect(
    address: str, credentials: grpc.ChannelCredentials | None = None, **arguments: int
) -> grpc.Channel:
    """Open a channel with a connection of its own, and channel arguments such as max_..."""
    given = [(f"grpc.{name}", value) for name, value in arguments.items()]
    options = [("grpc.use_local_subchannel_pool", 1), *given]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def serving(make: Callable[[], Transport]) -> Serve:
    """Return how to serve routes with a new transport of `make`."""

    @contextmanager
    def serve(routes: Routes) -> Iterator[Client]:
        transport = make()
        address = f"127.0.0.1:{transport.start('127.0.0.1:0', routes)}"
        try:
            with connect(address) as channel:
                yield Client(transport, address, channel)
        finally:
            transport.stop(0)

    return serve


@dataclass
class Held:
    """A unary handler that keeps its calls; the test answers them."""

    calls: queue.Queue[Call] = field(default_factory=queue.Queue)

    def __call__(self, call: Call) -> None:
        self.calls.put(call)

    def next(self) -> Call:
        return self.calls.get(timeout=PATIENCE)


class Recorder:
    """A receiver that remembers what came; answers only if told how."""

    def __init__(self, stream: Stream, answer: Callable[[Stream, bytes], None]) -> None:
        self.stream = stream
        self.messages: queue.Queue[bytes] = queue.Queue()
        self.closed = threading.Event()
        self.drained = threading.Event()
        self.over: queue.Queue[bool] = queue.Queue()
        self._answer = answer

    def message(self, data: bytes) -> None:
        self.messages.put(data)
        self._answer(self.stream, data)

    def half_closed(self) -> None:
        self.closed.set()

    def drain(self) -> None:
        self.drained.set()

    def cancel(self) -> None:
        self.over.put(self.stream.cancelled)


@dataclass
class Recorders:
    """A stream handler that makes recorders and keeps them."""

    answer: Callable[[Stream, bytes], None] = lambda stream, data: None
    made: queue.Queue[Recorder] = field(default_factory=queue.Queue)

    def __call__(self, stream: Stream) -> Recorder:
        recorder = Recorder(stream, self.answer)
        self.made.put(recorder)
        return recorder

    def next(self) -> Recorder:
        return self.made.get(timeout=PATIENCE)


class Requests:
    """Requests of a stream, sent when the test says so; iteration ends at `close`."""

    def __init__(self, *first: bytes) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        for request in first:
            self.send(request)

    def send(self, request: bytes) -> None:
        self._queue.put(request)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)
