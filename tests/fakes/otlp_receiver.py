"""A receiver of traces over OTLP and HTTP, which keeps, refuses, or hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.http_receiver import WITHIN, Answers, HttpReceiver


class OtlpReceiver(HttpReceiver):
    """Keeps the spans that it took."""

    def __init__(self, answers: Answers = lambda _: 200) -> None:
        super().__init__(answers)
        self.messages: list[ExportTraceServiceRequest] = []
        """Those that were taken."""
        self.headers: list[dict[str, str]] = []
        """Of every message."""
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def spans(self) -> Iterator[Any]:
        """Yield every span that came."""
        for message in list(self.messages):
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def wait_for(self, *names: str) -> list[Any]:
        """Return the spans so far, once those of these names came as often as they are given."""
        wanted = {name: names.count(name) for name in names}
        end = time.monotonic() + WITHIN
        with self._changed:
            while True:
                found = list(self.spans())
                came = [span.name for span in found]
                if all(came.count(name) >= count for name, count in wanted.items()):
                    return found
                assert self._changed.wait(end - time.monotonic()), came

    def tried(self, count: int) -> None:
        """Return once so many messages came, whatever became of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.headers) >= count, WITHIN)

    def _received(self, request: BaseHTTPRequestHandler, body: bytes) -> int | None:
        with self._changed:
            self.headers.append({**request.headers, "path": request.path})
            code = self._answers(len(self.headers))
            if code == 200:
                self.messages.append(ExportTraceServiceRequest.FromString(body))
            self._changed.notify_all()
        return code
