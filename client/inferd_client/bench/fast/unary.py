"""One place in flight that sends ModelInfer again and again."""

from __future__ import annotations

import math

from inferd_client.bench.fast.answers import Answers
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.link import Link
from inferd_client.bench.fast.load import Load
from inferd_client.bench.fast.messages import MessageReader, everything, nothing
from inferd_client.bench.fast.outbox import Baked
from inferd_client.bench.samples import OK
from inferd_client.errors import DeadlinePassed


class UnaryPlace:
    """A place, and the call that is in it."""

    __slots__ = (
        "_answers",
        "_baked",
        "_connection",
        "_link",
        "_load",
        "_messages",
        "_reader",
        "_stream",
        "due",
        "started",
    )

    def __init__(self, link: Link, load: Load, baked: Baked, answers: Answers | None) -> None:
        self.due = 0.0
        self.started = math.inf
        self._link = link
        self._load = load
        self._baked = baked
        self._answers = answers
        self._reader = MessageReader(nothing if answers is None else everything)
        self._messages: list[bytes] = []
        self._connection: Connection | None = None
        self._stream = 0

    def send(self) -> None:
        """Send the request."""
        self._link.submit(self)

    def begin(self, connection: Connection) -> None:
        """Send it on a connection that has room."""
        self._connection = connection
        self._stream = connection.request(self._baked, self)

    def data(self, data: bytes) -> None:
        """Take a part of the answer."""
        self._messages += self._reader.feed(data)

    def ended(self, code: str) -> None:
        """Count the answer."""
        self._connection = None
        if code == OK:
            code = self._verdict()
        elif not self._reader.empty:
            self._reader.clear()
        self._messages.clear()
        self._load.settle(self, code)

    def unprocessed(self) -> None:
        """Send the request once more, elsewhere."""
        self._connection = None
        self._reader.clear()
        self._messages.clear()
        self._link.submit(self)

    def expire(self) -> None:
        """Give the request up."""
        if self._connection is not None:
            self._connection.cancel(self._stream)
        else:
            self._link.withdraw(self)
        self.ended(DeadlinePassed.code)

    def _verdict(self) -> str:
        """Return INTERNAL, as gRPC does, unless there is exactly one whole answer."""
        if len(self._messages) != 1 or not self._reader.empty:
            self._reader.clear()
            return "INTERNAL"
        if self._answers is not None:
            self._answers.check(self._messages[0])
        return OK
