"""Puts a cache together as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable

from inferd_server.batching.timers import Timers
from inferd_server.cache.answers import Answers
from inferd_server.cache.breaker import Breaker
from inferd_server.cache.flight import Flights
from inferd_server.cache.redis import RedisClient, connector
from inferd_server.cache.remote import Remote
from inferd_server.cache.response_cache import ResponseCache
from inferd_server.cache.store import Store
from inferd_server.settings.model import CacheSettings

log = logging.getLogger(__name__)
FAILURES = 3
"""In a row, after which Redis is left alone."""
REST_S = 5.0
"""For so long, until it is tried again."""


def make_cache(
    settings: CacheSettings, clock: Callable[[], float], wall: Callable[[], float]
) -> ResponseCache:
    """Return an empty cache. It connects to Redis now, and starts threads when there is use for it.

    Args:
        settings: checked.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """
    alarms = Timers(clock)
    return ResponseCache(
        Store(settings.cache_bytes),
        Flights(settings.cache_max_waiting),
        alarms,
        _remote(settings, alarms, clock) if settings.cache_redis_url else None,
        Answers(clock, wall),
        clock,
    )


def _remote(settings: CacheSettings, alarms: Timers, clock: Callable[[], float]) -> Remote:
    url, patience = settings.cache_redis_url, settings.cache_redis_timeout_ms / 1000
    client = RedisClient(connector(url, settings.cache_redis_password_file, patience))
    remote = Remote(client, Breaker(FAILURES, REST_S, clock, _told), alarms, clock, patience)
    remote.open()
    return remote


def _told(reason: str) -> None:
    if reason:
        log.warning("redis is left alone; answers are cached here only", extra={"why": reason})
    else:
        log.info("redis answers again")
