"""A webhook that takes messages over HTTP, refuses them, or hangs."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from typing import Any

from tests.fakes.http_receiver import WITHIN, Answers, HttpReceiver


class Webhook(HttpReceiver):
    """Keeps the messages that it took."""

    def __init__(self, answers: Answers = lambda _: 200) -> None:
        super().__init__(answers)
        self.came: SimpleQueue[dict[str, Any]] = SimpleQueue()
        """What was answered with 200."""
        self.tried: SimpleQueue[int] = SimpleQueue()
        """The number of each message, as soon as it is there."""
        self._count = 0

    @property
    def url(self) -> str:
        """As Apprise has it."""
        return f"json://{self.address}/"

    def lines(self) -> list[str]:
        """Return the lines of the next message that was taken."""
        return str(self.came.get(timeout=WITHIN)["message"]).splitlines()

    def _received(self, request: BaseHTTPRequestHandler, body: bytes) -> int | None:
        message = json.loads(body)
        self._count += 1
        code = self._answers(self._count)
        self.tried.put(self._count)
        if code == 200:
            self.came.put(message)
        return code
