"""The limits of one caller: requests in flight, and requests a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from inferd_server.errors import ResourceExhausted
from inferd_server.security.identity import Identity

BUSY_RETRY_S = 0.1
"""When a caller with too many requests in flight should try again: nobody knows when one ends."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests that may come at once, as of a moment in monotonic seconds."""

    level: float
    at: float


def take(bucket: Bucket, rate: float, now: float, count: int = 1) -> tuple[Bucket, float]:
    """Take requests from a bucket, which fills with `rate` a second up to a second's worth.

    More than a second's worth at once takes all that there is in a full one.

    Returns:
        The bucket, and the seconds until it has as many if it has not now; 0 if they were taken.
    """
    full = max(1.0, rate)
    wanted = min(full, count)
    level = min(full, bucket.level + (now - bucket.at) * rate)
    if level >= wanted:
        return Bucket(level - wanted, now), 0.0
    return Bucket(level, now), (wanted - level) / rate


class CallerLimits:
    """What every caller has in flight and has sent lately. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nobody; `clock` is monotonic seconds."""
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()

    def enter(self, who: Identity) -> ResourceExhausted | None:
        """Count a request, to be left again if it has a bound in flight; or refuse it."""
        with self._lock:
            most = who.max_in_flight
            if most is not None and self._in_flight[who.name] >= most:
                return _refusal(who, "IN_FLIGHT_LIMIT", "in flight", most, BUSY_RETRY_S)
            rate = who.requests_per_second
            if rate is not None:
                now = self._clock()
                bucket = self._buckets.get(who.name) or Bucket(max(1.0, rate), now)
                self._buckets[who.name], wait = take(bucket, rate, now)
                if wait:
                    return _refusal(who, "RATE_LIMIT", "a second", rate, wait)
            if most is not None:
                self._in_flight[who.name] += 1
        return None

    def leave(self, who: Identity) -> None:
        """Count a request no longer that was in flight."""
        with self._lock:
            self._in_flight[who.name] -= 1


def _refusal(
    who: Identity, reason: str, unit: str, limit: float, retry_after: float
) -> ResourceExhausted:
    return ResourceExhausted(
        f"{who.name!r} may have {limit:g} requests {unit}",
        reason=reason,
        facts={"identity": who.name, "limit": f"{limit:g}"},
        retry_after=retry_after,
    )
