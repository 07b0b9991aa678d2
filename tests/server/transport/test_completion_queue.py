"""The transport over gRPC core's completion queue keeps the contract."""

from __future__ import annotations

import grpc
from inferd_server.transport.call import Routes, Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport
from inferd_server.transport.completion_queue.core import missing
from inferd_server.transport.options import TransportOptions

from tests.server.serving import failure
from tests.server.transport.authorize_contract import AuthorizeContract
from tests.server.transport.client import PATIENCE, serving
from tests.server.transport.compression_contract import CompressionContract
from tests.server.transport.connection_contract import ConnectionContract
from tests.server.transport.contract import OPTIONS, PATH, UnaryContract, echo
from tests.server.transport.end_contract import EndContract
from tests.server.transport.handshake_contract import HandshakeContract
from tests.server.transport.in_flight_contract import InFlightContract
from tests.server.transport.limit_contract import LimitContract
from tests.server.transport.metadata_contract import MetadataContract
from tests.server.transport.refused_contract import RefusedContract
from tests.server.transport.stop_contract import StopContract
from tests.server.transport.stream_contract import StreamContract
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
    pass


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
