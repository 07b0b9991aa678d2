"""The board behind the health service: who watches, and when they are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from inferd.tensors import Buffer
from inferd_server.errors import InferdError
from inferd_server.rpc.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, HealthBoard
from inferd_server.transport.call import Metadata


@dataclass
class FakeStream:
    """Remembers what was sent."""

    sent: list[int] = field(default_factory=list)
    ended: list[InferdError | None] = field(default_factory=list)
    metadata: Metadata = ()
    peer: str = ""
    deadline: float | None = None
    cancelled: bool = False

    def send(self, parts: Sequence[Buffer]) -> None:
        self.sent.append(HealthCheckResponse.FromString(b"".join(parts)).status)

    def finish(self) -> None:
        self.ended.append(None)

    def fail(self, error: InferdError) -> None:
        self.ended.append(error)


def request(service: str) -> bytes:
    return HealthCheckRequest(service=service).SerializeToString()


def test_watchers_hear_of_changes_only_and_of_their_service_only() -> None:
    board, stream = HealthBoard(), FakeStream()
    board.watch(stream).message(request("a"))
    for a, b in [(True, True), (True, False), (False, False)]:
        board.update({"a": a, "b": b})
    assert stream.sent == [SERVICE_UNKNOWN, SERVING, NOT_SERVING]


def test_a_watcher_that_left_hears_nothing() -> None:
    board, stream = HealthBoard(), FakeStream()
    watch = board.watch(stream)
    watch.message(request("a"))
    watch.cancel()
    watch.cancel()
    board.update({"a": True})
    assert stream.sent == [SERVICE_UNKNOWN]


def test_a_watch_that_asked_twice_is_forgotten_under_both_names() -> None:
    board, stream = HealthBoard(), FakeStream()
    watch = board.watch(stream)
    watch.message(request("a"))
    watch.message(request("b"))
    assert len(stream.ended) == 1
    watch.cancel()
    board.update({"a": True, "b": True})
    assert stream.sent == [SERVICE_UNKNOWN]
