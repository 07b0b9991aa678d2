"""The transport over grpc.aio keeps the contract."""

from __future__ import annotations

from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Transport

from tests.server.transport.contract import OPTIONS, UnaryContract
from tests.server.transport.stop_contract import StopContract
from tests.server.transport.stream_contract import StreamContract


def make() -> Transport:
    return AioTransport(OPTIONS)


class TestAioUnary(UnaryContract):
    def make(self) -> Transport:
        return make()


class TestAioStream(StreamContract):
    def make(self) -> Transport:
        return make()


class TestAioStop(StopContract):
    def make(self) -> Transport:
        return make()
