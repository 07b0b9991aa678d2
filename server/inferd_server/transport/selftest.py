"""Calls over loopback that show whether a transport works with the grpcio that is installed."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from inferd_server.errors import InferdError, InvalidInput
from inferd_server.transport.call import Call, Receiver, Routes, Stream, Transport

ECHO, REFUSE, STREAM = "/selftest/Echo", "/selftest/Refuse", "/selftest/Stream"
COMPRESSIBLE = bytes(10_000)
MESSAGES = (b"", b"one", bytes(100_000))
PATIENCE_S = 5.0
# The environment's proxy is for other hosts.
OWN_HOST = (("grpc.enable_http_proxy", 0),)


class Echoing:
    """A receiver that sends back what it gets."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def message(self, data: bytes) -> None:
        """Send it back."""
        self._stream.send((data,))

    def half_closed(self) -> None:
        """End."""
        self._stream.finish()

    def drain(self) -> None:
        """End."""
        self._stream.finish()

    def cancel(self) -> None:
        """Nothing is held."""


def echo(call: Call) -> None:
    """Answer with the request."""
    call.reply((call.request,))


def refuse(call: Call) -> None:
    """Answer with an error."""
    call.fail(InvalidInput("as asked"))


def open_stream(stream: Stream) -> Receiver:
    """Echo a stream."""
    return Echoing(stream)


def selftest(transport: Transport) -> str:
    """Start a transport, call it in every way, stop it; return what went wrong, or ""."""
    routes = Routes({ECHO: echo, REFUSE: refuse}, {STREAM: open_stream})
    try:
        port = transport.start("127.0.0.1:0", routes)
    except (InferdError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        return f"it does not start: {error}"
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", OWN_HOST) as channel:
            return next(problems(channel), "")
    except grpc.RpcError as error:
        return f"a call failed: {error.code().name} {error.details()}"
    finally:
        transport.stop(0)


def problems(channel: grpc.Channel) -> Iterator[str]:
    """Yield what is not as it should be."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
    if any(call(message, timeout=PATIENCE_S) != message for message in MESSAGES):
        yield "an answer differs from its request"
    if call(COMPRESSIBLE, timeout=PATIENCE_S, compression=grpc.Compression.Gzip) != COMPRESSIBLE:
        yield "a compressed request arrives changed"
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
    if tuple(stream(iter(MESSAGES), timeout=PATIENCE_S)) != MESSAGES:
        yield "the answers of a stream differ from its requests"
    refusing: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(REFUSE)
    code = refusing.future(b"", timeout=PATIENCE_S).code()
    if code != grpc.StatusCode.INVALID_ARGUMENT:
        yield f"an error arrives as {code}"
