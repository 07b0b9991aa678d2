"""Redis as the shared cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd_server.cache.key import Key
from inferd_server.cache.lookup import Stored
from inferd_server.cache.remote import RemoteError

if TYPE_CHECKING:
    from redis import Redis

PREFIX = b"inferd:response:"


class RedisClient:
    """Asks in one round trip. Connects when first asked, and anew after any failure."""

    def __init__(self, connect: Callable[[], Redis]) -> None:
        """Prepare; `connect` makes a client and may fail."""
        self._connect = connect
        self._redis: Redis | None = None

    def exchange(
        self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]
    ) -> Sequence[Stored | None]:
        """Store these, and return what there is for each key that is wanted; blocks.

        Raises:
            RemoteError: Redis is not there, too slow, or refuses.
        """
        from redis import RedisError

        try:
            answers = self._ask(wanted, stored)
        except (RedisError, OSError, ValueError) as error:
            # ValueError: a password that is no text, or an option of the URL that is none.
            self.close()
            raise RemoteError(f"{type(error).__name__}: {error}") from error
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if refused:
            raise RemoteError(f"{type(refused[0]).__name__}: {refused[0]}")
        found = answers[: 2 * len(wanted)]
        return [_stored(*pair) for pair in zip(found[::2], found[1::2], strict=True)]

    def close(self) -> None:
        """Let the connection go."""
        redis, self._redis = self._redis, None
        if redis is not None:
            redis.close()

    def _ask(self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]) -> list[Any]:
        if self._redis is None:
            self._redis = self._connect()
        pipeline = self._redis.pipeline(transaction=False)
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
        timeout: seconds for connecting, and for each answer.
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
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            max_connections=1,
        )
        return client

    return connect


def _name(key: Key) -> bytes:
    return PREFIX + key.hex().encode()


def _stored(data: bytes | None, milliseconds: int) -> Stored | None:
    # What expired between the two, or was stored without an end by somebody else, is not used.
    if data is None or milliseconds <= 0:
        return None
    return Stored(data, milliseconds / 1000)
