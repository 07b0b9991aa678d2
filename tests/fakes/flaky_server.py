"""An Open Inference Protocol server that counts its calls, fails some, and may tell its health."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from tests.fakes.oip_server import OipServer


class FlakyServer(OipServer):
    """Fails its first `failures` calls with `code`; tells its health unless `serving` is None."""

    def __init__(
        self,
        failures: int = 0,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        serving: bool | None = None,
    ) -> None:
        self.calls = 0
        self._failures = failures
        self._failure = (code, "not now", "")
        self._serving = serving
        super().__init__()

    def begin(self, request: Any, context: grpc.ServicerContext) -> None:
        self.calls += 1
        self.fail = self._failure if self.calls <= self._failures else None
        super().begin(request, context)

    def _add_services(self) -> None:
        super()._add_services()
        if self._serving is not None:
            names = {True: HealthCheckResponse.SERVING, False: HealthCheckResponse.NOT_SERVING}
            board = health.HealthServicer()
            board.set("", names[self._serving])
            add_HealthServicer_to_server(board, self._server)
