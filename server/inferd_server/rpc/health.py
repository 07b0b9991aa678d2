"""grpc.health.v1: Check, List and Watch.

Services are "" (the server), the inference service's name, "liveness", and every model.
Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from inferd_server.errors import InvalidInput, ServiceNotFound, ShuttingDown
from inferd_server.rpc.handlers import parse_message
from inferd_server.transport.call import Receiver, Stream

Status: TypeAlias = int
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
# The package of stubs for mypy does not know these yet.
LIST_REQUEST: type[Message] = health_pb2.HealthListRequest  # type: ignore[attr-defined]
LIST_RESPONSE: Callable[..., Message] = health_pb2.HealthListResponse  # type: ignore[attr-defined]


class HealthBoard:
    """The status of every service, and who watches. Any thread may call any method."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._watchers: dict[str, list[Watch]] = {}
        self._lock = threading.Lock()

    def update(self, serving: Mapping[str, bool]) -> None:
        """Set the status of all services, and tell watchers of those that changed or are gone."""
        with self._lock:
            for service in self._statuses.keys() - serving.keys():
                del self._statuses[service]
                for watch in self._watchers.get(service, ()):
                    watch.tell(SERVICE_UNKNOWN)
            for service, is_serving in serving.items():
                status = SERVING if is_serving else NOT_SERVING
                if self._statuses.get(service) != status:
                    self._statuses[service] = status
                    # Sent under the lock, so that no watcher sees two changes swapped.
                    for watch in self._watchers.get(service, ()):
                        watch.tell(status)

    def check(self, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Return a service's status.

        Raises:
            ServiceNotFound: no such service.
        """
        with self._lock:
            if request.service not in self._statuses:
                raise ServiceNotFound(f"health knows no service {request.service!r}")
            return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    def list(self, _: Message) -> Message:
        """Return the status of every service."""
        answer = health_pb2.HealthCheckResponse
        with self._lock:
            return LIST_RESPONSE(
                statuses={name: answer(status=status) for name, status in self._statuses.items()}
            )

    def watch(self, stream: Stream) -> Receiver:
        """Handle a Watch call."""
        return Watch(self, stream)

    def join(self, service: str, watch: Watch) -> None:
        """Send the status now, and every change from now on."""
        with self._lock:
            self._watchers.setdefault(service, []).append(watch)
            watch.tell(self._statuses.get(service, SERVICE_UNKNOWN))

    def leave(self, service: str, watch: Watch) -> None:
        """Send no more."""
        with self._lock:
            watchers = self._watchers.get(service, [])
            if watch in watchers:
                watchers.remove(watch)
            if not watchers:
                self._watchers.pop(service, None)


class Watch:
    """One Watch call."""

    def __init__(self, board: HealthBoard, stream: Stream) -> None:
        self._board = board
        self._stream = stream
        self._service: str | None = None

    def message(self, data: bytes) -> None:
        """Begin to watch the service that the one request names."""
        if self._service is not None:
            self._stream.fail(InvalidInput("a Watch call has one request, and this is another"))
            return
        try:
            request = parse_message(health_pb2.HealthCheckRequest, data)
        except InvalidInput as error:
            self._stream.fail(error)
            return
        self._service = request.service
        self._board.join(request.service, self)

    def half_closed(self) -> None:
        """Go on: the caller sends one request and listens."""
        if self._service is None:
            self._stream.fail(InvalidInput("a Watch call needs a request"))

    def drain(self) -> None:
        """End: a watch has no end of its own, and would use up the time to stop."""
        self._stream.fail(ShuttingDown("the server stops; watch again elsewhere"))

    def cancel(self) -> None:
        """Stop watching."""
        if self._service is not None:
            self._board.leave(self._service, self)

    def tell(self, status: Status) -> None:
        """Send a status."""
        message = health_pb2.HealthCheckResponse(status=status)
        self._stream.send((message.SerializeToString(),))
