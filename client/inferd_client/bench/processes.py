"""Runs a plan here or shared among processes, and tells how far it is."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import connection
from typing import Any

from inferd_client.bench import load
from inferd_client.bench.choice import FAST
from inferd_client.bench.plan import Plan, split
from inferd_client.bench.samples import Samples, merge

# Seconds between two reports of progress.
_INTERVAL = 0.5


def run(plan: Plan, processes: int, progress: Callable[[float], None]) -> Samples:
    """Run a plan and return the figures of all processes together.

    Args:
        plan: the whole run.
        processes: 1 runs it in this one.
        progress: told the seconds since the start, now and then.

    Raises:
        ValueError: the load cannot be shared among so many.
        OSError: the host has no address.
    """
    plans = split(plan, processes)
    if processes == 1 and plan.client == FAST:
        return _drive_fast(plan, progress)
    work = load.drive(plan) if processes == 1 else _drive_all(plans)
    return asyncio.run(_watched(work, progress))


async def _watched(
    work: Coroutine[Any, Any, Samples], progress: Callable[[float], None]
) -> Samples:
    start = time.monotonic()
    task = asyncio.create_task(work)
    while not task.done():
        await asyncio.wait([task], timeout=_INTERVAL)
        progress(time.monotonic() - start)
    return task.result()


async def _drive_all(plans: list[Plan]) -> Samples:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        # A pool for each, so that no process ever takes two shares; gRPC does not survive fork.
        pools = [
            stack.enter_context(
                ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent)
            )
            for _ in plans
        ]
        parts = [
            loop.run_in_executor(pool, _drive_blocking, plan)
            for pool, plan in zip(pools, plans, strict=True)
        ]
        return merge(await asyncio.gather(*parts))


def _drive_blocking(plan: Plan) -> Samples:
    if plan.client == FAST:
        return _drive_fast(plan, lambda _: None)
    return asyncio.run(load.drive(plan))


def _drive_fast(plan: Plan, progress: Callable[[float], None]) -> Samples:
    # Its dependency is there only where it was asked for.
    from inferd_client.bench.fast.drive import drive

    return drive(plan, progress)


def _end_with_parent() -> None:
    # The terminal interrupts every process of the group; only the parent has something to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    # Killed, a parent ends no child; the load of an orphan would reach nobody.
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
