"""The transport over grpc.aio keeps the contract."""

from __future__ import annotations

from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Transport
from inferd_server.transport.options import TransportOptions

from tests.server.transport.authorize_contract import AuthorizeContract
from tests.server.transport.compression_contract import CompressionContract
from tests.server.transport.connection_contract import ConnectionContract
from tests.server.transport.contract import OPTIONS, UnaryContract
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
        return AioTransport(options)


class TestAioUnary(Made, UnaryContract):
    pass


class TestAioStream(Made, StreamContract):
    pass


class TestAioStop(Made, StopContract):
    pass


class TestAioEnd(Made, EndContract):
    pass


class TestAioMetadata(Made, MetadataContract):
    pass


class TestAioConnection(Made, ConnectionContract):
    pass


class TestAioHandshake(Made, HandshakeContract):
    pass


class TestAioInFlight(Made, InFlightContract):
    pass


class TestAioAuthorize(Made, AuthorizeContract):
    pass


class TestAioCompression(Made, CompressionContract):
    pass


class TestAioLimit(Made, LimitContract):
    pass


class TestAioRefused(Made, RefusedContract):
    pass


class TestAioUnsent(Made, UnsentContract):
    pass


class TestAioTls(Made, TlsContract):
    pass
