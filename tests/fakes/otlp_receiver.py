"""A receiver of traces over OTLP and HTTP, which keeps, refuses, or hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WITHIN = 30.0


class OtlpReceiver:
    """Listens on loopback. `answers` says with which code; None: with none, until the end."""

    def __init__(self, answers: Callable[[int], int | None] = lambda _: 200) -> None:
        self.messages: list[ExportTraceServiceRequest] = []
        """Those that were taken."""
        self.headers: list[dict[str, str]] = []
        """Of every message."""
        self._answers = answers
        self._end = threading.Event()
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WITHIN)

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
        with self._came:
            while True:
                found = list(self.spans())
                came = [span.name for span in found]
                if all(came.count(name) >= count for name, count in wanted.items()):
                    return found
                assert self._came.wait(end - time.monotonic()), came

    def tried(self, count: int) -> None:
        """Return once so many messages came, whatever became of them."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.headers) >= count, WITHIN)

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        with self._came:
            self.headers.append({**request.headers, "path": request.path})
            code = self._answers(len(self.headers))
            if code == 200:
                self.messages.append(ExportTraceServiceRequest.FromString(body))
            self._came.notify_all()
        if code is None:
            self._end.wait(WITHIN)
            return
        request.send_response(code)
        request.end_headers()
