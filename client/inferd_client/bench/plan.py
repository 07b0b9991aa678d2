"""What a run of the load generator does, and when it sends what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inferd_client.connection import DEFAULT_TIMEOUT
from inferd_client.security import Metadata, Tls

# Servers that share a port among processes spread connections, not requests.
MAX_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """One bounded run; times are in seconds.

    Attributes:
        address: "host:port".
        request: a serialised ModelInferRequest, sent again and again.
        concurrency: requests in flight at most.
        duration: no request starts later than this.
        rate: requests a second whatever the answers do (open loop); None sends the next
            request when one is answered (closed loop).
        requests: stop after so many; None leaves it to the duration.
        warmup: closed-loop time before the run, not measured.
        stream: one ModelStreamInfer for each place in flight instead of unary calls.
        timeout: of each request.
        client: which one sends, "fast" or "grpc"; see `choice`.
        connections: of each process at most.
        per_stream: places that share one stream; more than one needs the fast client.
        check: compare answers; needs the fast client.
        tls: None for plaintext; otherwise needs gRPC's client.
        metadata: sent with every call; needs gRPC's client.
    """

    address: str
    request: bytes
    concurrency: int = 8
    duration: float = 10.0
    rate: float | None = None
    requests: int | None = None
    warmup: float = 0.0
    stream: bool = False
    timeout: float = DEFAULT_TIMEOUT
    client: str = "grpc"
    connections: int = MAX_CONNECTIONS
    per_stream: int = 1
    check: bool = False
    tls: Tls | None = None
    metadata: Metadata = ()

    @property
    def limit(self) -> float:
        """How many requests the run sends at most; infinite in an unlimited closed loop."""
        paced = math.inf if self.rate is None else math.ceil(self.rate * self.duration)
        return min(paced, math.inf if self.requests is None else self.requests)

    def as_warmup(self) -> Plan:
        """Return the run that comes before this one."""
        return replace(self, duration=self.warmup, rate=None, requests=None, warmup=0.0)


class Schedule:
    """Hands out the moments at which requests should start."""

    def __init__(self, plan: Plan, start: float) -> None:
        self._plan = plan
        self._start = start
        self._end = start + plan.duration
        self._limit = plan.limit
        self._taken = 0

    def take(self, now: float) -> float | None:
        """Return when the next request should start, or None when the run is over.

        In open loop the moment may lie ahead, or in the past when all places were busy:
        latency counts from it, so that a slow server cannot hide by slowing the load down.
        """
        if now >= self._end or self._taken >= self._limit:
            return None
        due = now if self._plan.rate is None else self._start + self._taken / self._plan.rate
        self._taken += 1
        return due

    def unsent(self) -> int:
        """Return how many requests of an open loop were due and never started."""
        return 0 if self._plan.rate is None else int(self._limit) - self._taken


def split(plan: Plan, processes: int) -> list[Plan]:
    """Share a run among processes, as evenly as it goes.

    Raises:
        ValueError: fewer places or requests than processes.
    """
    if processes < 1 or min(plan.concurrency, plan.limit) < processes:
        raise ValueError(f"this load cannot be shared among {processes} processes")
    return [
        replace(
            plan,
            concurrency=_share(plan.concurrency, processes, index),
            rate=None if plan.rate is None else plan.rate / processes,
            requests=None if plan.requests is None else _share(plan.requests, processes, index),
        )
        for index in range(processes)
    ]


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)
