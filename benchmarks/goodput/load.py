"""Load from one process: callers in a loop, or requests that come whether answers do or not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle

import grpc
import grpc.aio
import numpy as np
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Each channel has a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(slots=True)
class Seen:
    """What became of the requests; times in seconds."""

    deadline: float
    sent: int = 0
    took: list[float] = field(default_factory=list)
    """Of those with an answer."""
    ended: list[float] = field(default_factory=list)
    """When those that were in time were answered, since the load began."""
    codes: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Told at once, within half of their time, that there is no room."""

    def between(self, start: float, end: float) -> int:
        """Count the answers in time that came within these seconds of the load."""
        return sum(start <= moment < end for moment in self.ended)

    @property
    def late(self) -> float:
        """Of the requests that were not refused, the part without an answer in time."""
        accepted = self.sent - self.refused
        return 1 - len(self.ended) / accepted if accepted else 0.0

    def add(self, other: Seen) -> None:
        """Count what became of others, too."""
        self.sent += other.sent
        self.refused += other.refused
        self.codes += other.codes
        self.took += other.took
        self.ended += other.ended

    def percentile(self, part: float) -> float:
        """Return the time within which this part of the answers came."""
        return float(np.quantile(self.took, part)) if self.took else float("nan")


class Caller:
    """Sends one request over and over, on one connection after the other."""

    def __init__(
        self, channels: Sequence[grpc.aio.Channel], request: object, deadline: float
    ) -> None:
        self._stubs = cycle([GRPCInferenceServiceStub(one) for one in channels])  # type: ignore[no-untyped-call]
        self._request = request
        self._deadline = deadline
        self._began = time.monotonic()
        self.seen = Seen(deadline)

    async def call(self) -> None:
        """Send it once, and note what came of it."""
        seen = self.seen
        seen.sent += 1
        start = time.monotonic()
        try:
            await next(self._stubs).ModelInfer(self._request, timeout=self._deadline)
        except grpc.aio.AioRpcError as error:
            code = str(error.code().name)
            took = time.monotonic() - start
            seen.refused += code != "CANCELLED" and took < self._deadline / 2
        else:
            code, end = "OK", time.monotonic()
            seen.took.append(end - start)
            if end - start <= self._deadline:
                seen.ended.append(end - self._began)
        seen.codes[code] += 1


@asynccontextmanager
async def caller(
    url: str, request: object, deadline: float, connections: int
) -> AsyncIterator[Caller]:
    """Give a caller with so many connections."""
    async with AsyncExitStack() as stack:
        opened = [grpc.aio.insecure_channel(url, CHANNEL) for _ in range(connections)]
        channels = [await stack.enter_async_context(one) for one in opened]
        await asyncio.gather(*(one.channel_ready() for one in channels))
        yield Caller(channels, request, deadline)


async def closed(
    url: str,
    request: object,
    callers: int,
    seconds: float,
    deadline: float,
    connections: int = 1,
) -> Seen:
    """Let so many callers send one request after the other."""
    async with caller(url, request, deadline, connections) as one:
        start = time.monotonic()

        async def loop() -> None:
            while time.monotonic() - start < seconds:
                await one.call()

        await asyncio.gather(*(loop() for _ in range(callers)))
        return one.seen


async def opened(
    url: str, request: object, at: Sequence[float], deadline: float, connections: int = 1
) -> Seen:
    """Send requests at these seconds from now, and wait for what becomes of all."""
    async with caller(url, request, deadline, connections) as one:
        start = time.monotonic()
        under_way = set()
        for moment in at:
            await asyncio.sleep(max(0.0, start + moment - time.monotonic()))
            task = asyncio.create_task(one.call())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        return one.seen


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Draw the moments of a Poisson process, in seconds."""
    generator = np.random.default_rng(seed)
    gaps = generator.exponential(1 / rate, int(2 * rate * seconds) + 10)
    moments = np.cumsum(gaps)
    return [float(moment) for moment in moments[moments < seconds]]
