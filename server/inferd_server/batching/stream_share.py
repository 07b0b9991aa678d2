"""The part of a queue that one stream may have: the rest of its requests stand behind.

A caller can send hundreds of requests over a stream at once. In order of arrival, whoever comes
next would wait for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

BATCHES = 2
"""Full batches that one stream may have waiting: one to run, and one to follow it at once."""


class Streamed(Protocol):
    """A request, as far as the share of its stream needs to know it."""

    @property
    def rows(self) -> int:
        """Rows it brings to a batch."""

    @property
    def stream(self) -> object:
        """The stream that it came on."""


S = TypeVar("S", bound=Streamed)


class StreamShares(Generic[S]):
    """The requests of streams that stand behind, each until earlier ones of its stream leave.

    Used under the lock of the queue. Streams are told apart by identity.
    """

    def __init__(self) -> None:
        # Rows of each stream that wait among everybody's, and the requests behind them.
        self._ahead: dict[int, int] = {}
        self._behind: dict[int, deque[S]] = {}

    @property
    def behind(self) -> int:
        """Requests that stand behind."""
        return sum(map(len, self._behind.values()))

    def admit(self, request: S, max_rows: int) -> bool:
        """Count a request among everybody's; False if it stands behind.

        Args:
            request: of a stream.
            max_rows: rows in one batch.
        """
        stream = id(request.stream)
        ahead = self._ahead.get(stream, 0)
        if ahead >= BATCHES * max_rows:
            self._behind.setdefault(stream, deque()).append(request)
            return False
        self._ahead[stream] = ahead + request.rows
        return True

    def leave(self, request: S, max_rows: int) -> Iterator[S]:
        """Note that a request left, and yield those of its stream that may come forward."""
        stream = id(request.stream)
        ahead = self._ahead[stream] - request.rows
        behind = self._behind.get(stream)
        while behind and ahead < BATCHES * max_rows:
            ahead += behind[0].rows
            yield behind.popleft()
        if ahead:
            self._ahead[stream] = ahead
        else:
            del self._ahead[stream]
        if not behind:
            self._behind.pop(stream, None)

    def withdraw(self, request: S) -> bool:
        """Take out a request that stands behind; False if it does not."""
        try:
            self._behind[id(request.stream)].remove(request)
        except (KeyError, ValueError):
            return False
        return True

    def drain(self) -> list[S]:
        """Take out every request that stands behind, and forget all streams."""
        left = [request for behind in self._behind.values() for request in behind]
        self._ahead.clear()
        self._behind.clear()
        return left
