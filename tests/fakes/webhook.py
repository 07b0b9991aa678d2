"""A webhook that takes messages over HTTP, refuses them, or hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any, Self

WITHIN = 30.0


class Webhook:
    """Listens on loopback. `answers` says with which code; None: with none, until the end."""

    def __init__(self, answers: Callable[[int], int | None] = lambda _: 200) -> None:
        self.came: SimpleQueue[dict[str, Any]] = SimpleQueue()
        """What was answered with 200."""
        self.tried: SimpleQueue[int] = SimpleQueue()
        """The number of each message, as soon as it is there."""
        self._answers = answers
        self._count = 0
        self._end = threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook._take(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """As Apprise has it."""
        return f"json://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WITHIN)

    def lines(self) -> list[str]:
        """Return the lines of the next message that was taken."""
        return str(self.came.get(timeout=WITHIN)["message"]).splitlines()

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        self._count += 1
        code = self._answers(self._count)
        self.tried.put(self._count)
        if code is None:
            self._end.wait(WITHIN)
            return
        if code == 200:
            self.came.put(body)
        request.send_response(code)
        request.end_headers()
