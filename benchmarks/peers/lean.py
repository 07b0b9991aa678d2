"""The lean client of `inferd bench`, which takes little of the cores that it shares."""

from __future__ import annotations

import numpy as np
from inferd_client.bench.plan import Plan
from inferd_client.bench.processes import run
from inferd_client.requests import Request, build

from benchmarks.peers.analyzer import Figures
from benchmarks.peers.loads import Load
from benchmarks.peers.models import Model, example

CONNECTIONS = 16


class LeanClient:
    """Puts loads on a server as `Analyzer` does, without shared memory."""

    def check(self) -> None:
        """Do nothing: it is always there."""

    def measure(self, url: str, model: Model, load: Load, seconds: float) -> Figures:
        """Put the load on a server for about this long.

        Raises:
            RuntimeError: a request failed, or the load is none for this client.
        """
        if load.shared_memory:
            raise RuntimeError(f"{load.name}: the lean client has no shared memory")
        request = build(Request(model.name, {model.input: example(model)})).SerializeToString()
        connections = min(CONNECTIONS, load.callers)
        plan = Plan(
            url, request, load.callers, seconds, stream=load.stream, client="fast",
            connections=connections,
        )  # fmt: skip
        found = run(plan, 1, lambda _: None)
        if set(found.codes) != {"OK"}:
            raise RuntimeError(f"{load.name}: requests failed: {dict(found.codes)}")
        p50, p99 = np.quantile(found.latencies, (0.5, 0.99)) * 1e3
        return Figures(found.codes.total() / (found.ended - found.started), float(p50), float(p99))
