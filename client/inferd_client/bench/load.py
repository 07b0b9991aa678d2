"""Drives one process's share of a run.

asyncio and not threads: both cost about the same processor time for each request (measured
on an echo server), and one thread keeps to the schedule more closely.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc

from inferd_client.bench.plan import Plan, Schedule
from inferd_client.bench.samples import Samples
from inferd_client.bench.senders import Sender, StreamSender, UnarySender
from inferd_client.connection import MAX_MESSAGE_BYTES, open_aio_channel, options


async def drive(plan: Plan) -> Samples:
    """Warm up, then run the plan and return what was measured."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(_channel(plan))
            for _ in range(min(plan.concurrency, plan.connections))
        ]
        kind = StreamSender if plan.stream else UnarySender
        senders: list[Sender] = [
            kind(channels[index % len(channels)], plan.request, plan.timeout, plan.metadata)
            for index in range(plan.concurrency)
        ]
        for sender in senders:
            stack.callback(sender.close)
        if plan.warmup > 0:
            await measure(plan.as_warmup(), senders)
        return await measure(plan, senders)


def _channel(plan: Plan) -> grpc.aio.Channel:
    # Without its own pool a channel shares the connection of the others.
    own = ("grpc.use_local_subchannel_pool", 1)
    direct = bool(plan.metadata) and plan.tls is None
    arguments = options(MAX_MESSAGE_BYTES, direct=direct)
    return open_aio_channel(plan.address, plan.tls, [*arguments, own])


async def measure(
    plan: Plan, senders: list[Sender], clock: Callable[[], float] = time.monotonic
) -> Samples:
    """Run the plan once, each sender one request at a time; `clock` tells seconds."""
    samples = Samples(started=clock())
    schedule = Schedule(plan, samples.started)
    cpu = time.process_time()
    await asyncio.gather(*(_keep_sending(each, schedule, samples, clock) for each in senders))
    samples.cpu = time.process_time() - cpu
    samples.ended = clock()
    samples.unsent = schedule.unsent()
    return samples


async def _keep_sending(
    sender: Sender, schedule: Schedule, samples: Samples, clock: Callable[[], float]
) -> None:
    while (due := schedule.take(clock())) is not None:
        ahead = due - clock()
        if ahead > 0:
            await asyncio.sleep(ahead)
        code = await sender.send()
        samples.add(code, clock() - due)
