"""A receiver of messages over HTTP that takes, refuses, or hangs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

WITHIN = 30.0
Answers = Callable[[int], int | None]
"""The code for the n-th message, from 1 on; None: no answer until the end."""


class HttpReceiver(ABC):
    """Listens on loopback while it is entered."""

    def __init__(self, answers: Answers = lambda _: 200) -> None:
        self._answers = answers
        self._end = threading.Event()
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
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WITHIN)

    @abstractmethod
    def _received(self, request: BaseHTTPRequestHandler, body: bytes) -> int | None:
        """Note a message, and return the code that answers it."""

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        code = self._received(request, request.rfile.read(int(request.headers["content-length"])))
        if code is None:
            self._end.wait(WITHIN)
            return
        request.send_response(code)
        request.end_headers()
