"""Redis as the shared cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from inferd_server.cache.key import Key
from inferd_server.cache.lookup import Stored
from inferd_server.cache.remote import Exchanged, RemoteError

if TYPE_CHECKING:
    from redis import Redis

PREFIX = b"inferd:response:"
T = TypeVar("T")
CONNECT_S = 2.0
"""Seconds for a connection, which takes several round trips."""


class RedisClient:
    """Asks in one round trip. Connects when first asked, and anew after any failure."""

    def __init__(self, connect: Callable[[], Redis]) -> None:
        """Prepare; `connect` makes a client and may fail."""
        self._connect = connect
        self._redis: Redis | None = None

    def exchange(self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]) -> Exchanged:
        """Store these, and return what there is for each key that is wanted; blocks.

        Raises:
            RemoteError: Redis is not there, too slow, or refuses to tell.
        """
        answers = self._tried(lambda: self._ask(wanted, stored))
        found, kept = answers[: 2 * len(wanted)], answers[2 * len(wanted) :]
        if unread := _refusal(found):
            raise RemoteError(unread)
        pairs = zip(found[::2], found[1::2], strict=True)
        return Exchanged([_stored(*pair) for pair in pairs], _refusal(kept))

    def connect(self) -> None:
        """Import the package and connect; blocks.

        Raises:
            RemoteError: Redis is not there, too slow, or refuses.
        """
        self._tried(lambda: self._made().ping())

    def _tried(self, ask: Callable[[], T]) -> T:
        from redis import RedisError

        try:
            return ask()
        except (RedisError, OSError, ValueError) as error:
            # ValueError: a password that is no text.
            self.close()
            raise RemoteError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Let the connection go."""
        redis, self._redis = self._redis, None
        if redis is not None:
            redis.close()

    def _made(self) -> Redis:
        if self._redis is None:
            self._redis = self._connect()
        return self._redis

    def _ask(self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]) -> list[Any]:
        pipeline = self._made().pipeline(transaction=False)
        for key in wanted:
            pipeline.get(_name(key))
            pipeline.pttl(_name(key))
        for key, one in stored:
            pipeline.set(_name(key), one.data, px=max(1, round(one.ttl * 1000)))
        return pipeline.execute(raise_on_error=False)


def connector(url: str, password_file: str, timeout: float) -> Callable[[], Redis]:
    """Return a function that makes a client of Redis.

    Args:
        url: redis://, rediss:// (TLS) or unix://, without a password.
        password_file: read for every new connection, so that it may change; "" for none.
        timeout: seconds for each answer; connecting gets more.
    """

    def connect() -> Redis:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        secret = Path(password_file).read_text(encoding="utf-8").strip() if password_file else None
        # One attempt: whether another is worth it, the breaker says.
        client: Redis = Redis.from_url(
            url,
            password=secret,
            socket_timeout=timeout,
            socket_connect_timeout=max(timeout, CONNECT_S),
            retry=Retry(NoBackoff(), 0),
            max_connections=1,
        )
        return client

    return connect


def _refusal(answers: Sequence[object]) -> str:
    """Return the first error among answers; "" if there is none."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    return f"{type(errors[0]).__name__}: {errors[0]}" if errors else ""


def _name(key: Key) -> bytes:
    return PREFIX + key.hex().encode()


def _stored(data: bytes | None, milliseconds: int) -> Stored | None:
    # What expired between the two, or was stored without an end by somebody else, is not used.
    if data is None or milliseconds <= 0:
        return None
    return Stored(data, milliseconds / 1000)
