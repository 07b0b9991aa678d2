"""The transport over gRPC core's completion queue keeps the contract."""

from __future__ import annotations

from inferd_server.transport.call import Transport
from inferd_server.transport.completion_queue import CompletionQueueTransport
from inferd_server.transport.completion_queue.core import missing

from tests.server.transport.contract import OPTIONS, UnaryContract
from tests.server.transport.stop_contract import StopContract
from tests.server.transport.stream_contract import StreamContract


def make() -> Transport:
    return CompletionQueueTransport(OPTIONS)


class TestCompletionQueueUnary(UnaryContract):
    def make(self) -> Transport:
        return make()


class TestCompletionQueueStream(StreamContract):
    def make(self) -> Transport:
        return make()


class TestCompletionQueueStop(StopContract):
    def make(self) -> Transport:
        return make()


def test_the_cython_layer_has_everything_that_is_used_of_it() -> None:
    assert missing() == []
