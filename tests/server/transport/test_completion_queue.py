"""The transport over gRPC core's completion queue keeps the contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import pytest
from inferd_server.transport.call import Call, Routes, Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport
from inferd_server.transport.completion_queue.core import missing
from inferd_server.transport.options import TransportOptions

from tests.server.serving import failure
from tests.server.transport.authorize_contract import AuthorizeContract
from tests.server.transport.client import PATIENCE, Client, Recorders, Serve, serving
from tests.server.transport.compression_contract import CompressionContract
from tests.server.transport.connection_contract import ConnectionContract
from tests.server.transport.contract import (
    LIMIT,
    OPTIONS,
    PATH,
    UnaryContract,
    assert_still_serves,
    echo,
)
from tests.server.transport.end_contract import EndContract
from tests.server.transport.frames import connected, request
from tests.server.transport.handshake_contract import HandshakeContract
from tests.server.transport.in_flight_contract import InFlightContract
from tests.server.transport.limit_contract import LimitContract
from tests.server.transport.metadata_contract import MetadataContract
from tests.server.transport.refused_contract import (
    ECHO,
    STREAM,
    RefusedContract,
    Told,
    streamed,
    unary,
)
from tests.server.transport.stop_contract import StopContract
from tests.server.transport.stream_contract import StreamContract, echo_stream
from tests.server.transport.tls_contract import TlsContract
from tests.server.transport.unsent_contract import UnsentContract


class Made:
    """Makes the transport under test."""

    def make(self, options: TransportOptions = OPTIONS) -> Transport:
        return CompletionQueueTransport(options)


class TestCompletionQueueUnary(Made, UnaryContract):
    pass


class TestCompletionQueueStream(Made, StreamContract):
    pass


class TestCompletionQueueStop(Made, StopContract):
    pass


class TestCompletionQueueEnd(Made, EndContract):
    pass


class TestCompletionQueueMetadata(Made, MetadataContract):
    pass


class TestCompletionQueueConnection(Made, ConnectionContract):
    pass


class TestCompletionQueueHandshake(Made, HandshakeContract):
    pass


class TestCompletionQueueInFlight(Made, InFlightContract):
    pass


class TestCompletionQueueAuthorize(Made, AuthorizeContract):
    pass


class TestCompletionQueueCompression(Made, CompressionContract):
    pass


class TestCompletionQueueLimit(Made, LimitContract):
    pass


class TestCompletionQueueRefused(Made, RefusedContract):
    @pytest.mark.parametrize(("send", "method"), [(unary, PATH), (streamed, STREAM)])
    def test_a_message_that_core_refuses_is_told(
        self, serve: Serve, send: Callable[[Client, bytes], object], method: str
    ) -> None:
        """And no call whose caller goes away, or ends without a message."""
        told, unaries = Told(), {PATH: echo, ECHO: echo}
        routes = Routes(unaries, {STREAM: Recorders(echo_stream)}, refused=told.of)
        with serve(routes) as client:
            error = failure(lambda: send(client, bytes(LIMIT + 1)))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            # Core has forgotten the address.
            assert told.next(known=False) == (method, "MESSAGE_BYTES")
            with connected(client.address) as connection:
                connection.send(request(method, 1, b"whole")[:-3])
                assert_still_serves(client)
            failure(lambda: client.channel.stream_unary(PATH)(iter(()), timeout=PATIENCE))
            client.stream(STREAM, iter((b"x",))).cancel()
            send(client, b"within all bounds")
            assert told.none


class TestCompletionQueueUnsent(Made, UnsentContract):
    pass


class TestCompletionQueueTls(Made, TlsContract):
    pass


def test_the_cython_layer_has_everything_that_is_used_of_it() -> None:
    assert missing() == []


def test_a_call_without_a_message_is_told_so() -> None:
    serve = serving(lambda: CompletionQueueTransport(OPTIONS))
    with serve(Routes(unary={PATH: echo})) as client:
        method = client.channel.stream_unary(PATH)
        error = failure(lambda: method(iter(()), timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "without a message" in error.details()


RUN_S, TIMEOUT_S = 0.4, 4.0
"""Of a batch on the transport's thread, and of calls."""


class OneRun:
    """Turns of which one takes RUN_S after it was allowed to go on."""

    def __init__(self, wait: float | None) -> None:
        self.due, self.begun, self.go = (threading.Event() for _ in range(3))
        self._wait = wait

    def turn(self) -> float | None:
        """Take a turn."""
        if not self.due.is_set() or self.begun.is_set():
            return None
        self.begun.set()
        assert self.go.wait(PATIENCE)
        end = time.monotonic() + RUN_S
        while time.monotonic() < end:
            pass
        return self._wait


@pytest.mark.parametrize("crowded", [True, False])
def test_the_time_of_a_call_that_comes_after_a_run_counts_from_before_if_others_wait_too(
    crowded: bool,
) -> None:
    turns, deadlines = OneRun(0.0 if crowded else None), {}

    def handler(call: Call) -> None:
        deadlines[call.request] = call.deadline
        call.reply((b"",))

    serve = serving(lambda: CompletionQueueTransport(OPTIONS, turns))
    with serve(Routes(unary={PATH: handler})) as client:
        ask = client.unary(PATH)
        turns.due.set()
        waking = ask.future(b"waking", timeout=PATIENCE)
        assert turns.begun.wait(PATIENCE)
        sent = time.monotonic()
        during = ask.future(b"during", timeout=TIMEOUT_S)
        turns.go.set()
        assert (waking.result(PATIENCE), during.result(PATIENCE)) == (b"", b"")
    # Core reads it at once here: the caller's threads, which poll for all, are of this process.
    earlier = sent + TIMEOUT_S - deadlines[b"during"]
    assert (earlier > RUN_S / 2) == crowded
