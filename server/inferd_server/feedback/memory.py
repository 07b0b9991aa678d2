"""Which prediction tokens were used before: in this process, and in Redis where there is one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from inferd_server.cache.breaker import Breaker

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)
MOST_REMEMBERED = 100_000
"""Tokens that a process remembers; the oldest go first. Some 12 MB."""
PREFIX = b"inferd:feedback:"
FAILURES, REST_S = 3, 5.0
"""Failures in a row after which Redis is left alone, and for how long."""


class TokenMemory(Protocol):
    """Knows the tokens that were used."""

    def first(self, idents: Sequence[bytes]) -> list[bool]:
        """Remember tokens by their ids; say of each whether it is used for the first time."""

    def close(self) -> None:
        """Let connections go."""


class LocalMemory:
    """Of this process alone. Any thread may call any method."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        """Remember nothing yet, and `most` tokens at a time."""
        self._most = most
        self._used: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def first(self, idents: Sequence[bytes]) -> list[bool]:
        """Remember tokens by their ids; say of each whether it is used for the first time."""
        with self._lock:
            return [self._remember(ident) for ident in idents]

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _remember(self, ident: bytes) -> bool:
        if ident in self._used:
            return False
        self._used[ident] = None
        if len(self._used) > self._most:
            del self._used[next(iter(self._used))]
        return True


class RedisMemory:
    """Of all servers that share a Redis; while it is away, of this process.

    One thread at a time.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        seconds: float,
        clock: Callable[[], float],
        local: LocalMemory,
    ) -> None:
        """Prepare; connects when first asked, and anew after any failure.

        Args:
            connect: makes a client and may fail.
            seconds: after which a token is too old anyway.
            clock: monotonic seconds.
            local: knows what came to this process.
        """
        self._connect = connect
        self._seconds = max(1, round(seconds))
        self._local = local
        self._breaker = Breaker(FAILURES, REST_S, clock, _told)
        self._redis: Redis | None = None

    def first(self, idents: Sequence[bytes]) -> list[bool]:
        """Remember tokens by their ids; say of each whether it is used for the first time."""
        here = self._local.first(idents)
        asked = [ident for ident, new in zip(idents, here, strict=True) if new]
        if not asked or not self._breaker.allows():
            return here
        there = iter(self._ask(asked))
        return [new and next(there) for new in here]

    def close(self) -> None:
        """Let the connection go."""
        redis, self._redis = self._redis, None
        if redis is not None:
            redis.close()

    def _ask(self, idents: Sequence[bytes]) -> list[bool]:
        from redis import RedisError

        try:
            if self._redis is None:
                self._redis = self._connect()
            pipeline = self._redis.pipeline(transaction=False)
            for ident in idents:
                pipeline.set(PREFIX + ident.hex().encode(), b"", nx=True, ex=self._seconds)
            answers = pipeline.execute()
        except (RedisError, OSError, ValueError) as error:
            # ValueError: a password that is no text.
            self.close()
            self._breaker.failed(f"{type(error).__name__}: {error}")
            return [True] * len(idents)
        self._breaker.succeeded()
        return [bool(answer) for answer in answers]


def _told(reason: str) -> None:
    if reason:
        text = "redis is left alone; doubled feedback is noticed in one process only"
        log.warning(text, extra={"why": reason})
    else:
        log.info("redis answers again; doubled feedback is noticed everywhere")
