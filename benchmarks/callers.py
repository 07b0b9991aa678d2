"""Callers of a server: here, or in processes of their own.

What a benchmark does beside the load, such as reading /metrics, must not keep its callers waiting
for Python's lock: then they are in processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from inferd_client.bench.plan import Plan
from inferd_client.bench.processes import run
from inferd_client.bench.samples import Samples


def run_plan(plan: Plan, processes: int = 1) -> Samples:
    """Run a plan, in this process or shared among several.

    Raises:
        RuntimeError: a request failed.
    """
    samples = run(plan, processes, lambda _: None)
    if set(samples.codes) != {"OK"}:
        raise RuntimeError(f"requests failed: {dict(samples.codes)}")
    return samples


@contextmanager
def callers(count: int) -> Iterator[Executor]:
    """Start processes that callers run in; each takes one plan at a time."""
    with ProcessPoolExecutor(count, get_context("spawn")) as executor:
        yield executor
