"""The phases of a request beside its time, under load, in every arrangement.

    python -m benchmarks.phases [--seconds 3] [--callers 32]

Callers of gRPC's own client ask for `server-timing` with every request of the digits model. Of the
requests in the middle, and of the slowest hundredth's first, the sum of the phases is set beside
the time that the server tells, and that beside what the caller waited.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.settings.model import shipped_models

from benchmarks.process import digits_request, serving

ARRANGEMENTS = {
    "inline": ("--processes=inline",),
    "threads": ("--processes=threads",),
    "split": ("--processes=split", "--fronts=1"),
}
PART = re.compile(r"(\w+);dur=([\d.]+)")
MOST_OFF = 0.05


@dataclass(frozen=True, slots=True)
class Timed:
    """One request; milliseconds."""

    total: float
    """As the server tells it."""
    phases: float
    """The sum of all."""
    waited: float
    """By its caller."""


def load(url: str, seconds: float, callers: int) -> Sequence[Timed]:
    """Return what callers, each with one request at a time, were told."""
    request = digits_request()
    end = time.monotonic() + seconds

    def call(_: int) -> list[Timed]:
        found = []
        while (begun := time.monotonic()) < end:
            _, ended = stub.ModelInfer.with_call(request, metadata=[("server-timing", "true")])
            waited = (time.monotonic() - begun) * 1000
            told = str(dict(ended.trailing_metadata())["server-timing"])
            *phases, total = (float(value) for _, value in PART.findall(told))
            found.append(Timed(total, sum(phases), waited))
        return found

    with grpc.insecure_channel(url) as channel, ThreadPoolExecutor(callers) as pool:
        stub = GRPCInferenceServiceStub(channel)
        found = [one for own in pool.map(call, range(callers)) for one in own]
    return sorted(found, key=lambda one: one.total)


def main() -> int:
    """Measure and print; 1 if the phases of a request are too far from its time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, default=32)
    options = parser.parse_args()
    print("| arrangement | | requests | server, ms | phases, ms | off | caller, ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for name, flags in ARRANGEMENTS.items():
        with serving(shipped_models(), flags) as server:
            found = load(server.url, options.seconds, options.callers)
        for quantile in (0.5, 0.99):
            one = found[int(quantile * (len(found) - 1))]
            off = abs(one.phases / one.total - 1)
            worst = max(worst, off)
            print(
                f"| {name} | p{quantile * 100:g} | {len(found)} | {one.total:.3f} "
                f"| {one.phases:.3f} | {off:.2%} | {one.waited:.3f} |"
            )
    return int(worst > MOST_OFF)


if __name__ == "__main__":
    sys.exit(main())
