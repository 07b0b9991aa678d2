"""The cost of a batch in the worker process, from the rings of the fronts to the completions.

    python -m benchmarks.ring [--rounds 300] [--gate]

Both ends of the links are in this process, and the engine does nothing: fronts write requests of
one row of 4 floats, then the worker's side takes one batch and answers it, which alone is timed,
then the fronts take the answers. Prints medians in microseconds; with --gate it fails above a bar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from inferd.tensors import Array
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Signature, Tensor
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.job import Job
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.environment import collect_seldom
from inferd_server.errors import InferdError
from inferd_server.monitoring.phases import Phases
from inferd_server.processes.inbox import Inbox
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.link.worker_end import WorkerLink

SIZES = (1, 4, 8, 32, 64, 128, 256)
BARS: Mapping[tuple[int, int, int], float] = {(1, 1, 0): 35, (1, 32, 0): 75, (4, 32, 2000): 110}
"""Microseconds, by fronts, requests in the batch and backlog."""
MOST = 4096
LAYOUT = Layout(requests=MOST, input_bytes=1 << 24, answer_bytes=1 << 22)
WIDTH, FLOAT = 4, np.dtype(np.float32)
ROW = ((FLOAT, (WIDTH,)),)
SIGNATURE = Signature(
    (Tensor("INPUT0", FLOAT, (None, WIDTH)),), (Tensor("OUTPUT0", FLOAT, (None, WIDTH)),)
)
UNTIMED = 20
"""Batches before those that are timed."""


class NullEngine(Delegate):
    """Has its answer ready."""

    signature = SIGNATURE
    buckets: Sequence[int] = ()

    def __init__(self) -> None:
        self._rows = np.zeros((MOST, WIDTH), FLOAT)

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Return zeros."""
        del inputs, outputs
        return {"OUTPUT0": self._rows[:rows]}


class Asked(Job):
    """A request whose caller does not listen."""

    def _succeed(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        del outputs, phases

    def _refuse(self, error: InferdError) -> None:
        raise AssertionError(str(error))


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the worker, as fronts know it."""

    number: int
    name: str = "null"
    version: int = 1
    closed: bool = False
    returning: bool = False
    batched: bool = True
    outputs: Sequence[tuple[str, np.dtype[np.float32]]] = (("OUTPUT0", FLOAT),)


class Front:
    """One front's end of a link."""

    def __init__(self, memory: LinkMemory, wake_worker: int) -> None:
        self.link = FrontLink(memory, wake_worker)
        self._arena = Arena(MOST, LAYOUT.input_bytes, LanePool(self.link.inputs))

    def send(self, model: Model) -> None:
        """Write a request of one row."""
        slot = self._arena.reserve(ROW, 1, WIDTH * FLOAT.itemsize)
        job = Asked()
        job.place(slot, ROW, time.monotonic(), None)
        assert self.link.submit(job, model)


def measure(fronts: int, batch: int, backlog: int, rounds: int) -> float:
    """Return the median microseconds of the worker's side of one batch.

    Args:
        fronts: that send, in turns.
        batch: requests of one row in each batch.
        backlog: requests that wait beside those of the batch.
        rounds: batches that are timed.
    """
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    wakes = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(fronts)]
    memories = [create(LAYOUT) for _ in range(fronts)]
    links = [
        WorkerLink(index, LinkMemory(memory, LAYOUT), wakes[index])
        for index, memory in enumerate(memories)
    ]
    inbox = Inbox(links, wake, time.monotonic)
    for link in links:
        inbox.attach(link.index)
    queue = inbox.open([FLOAT], BatchBounds(batch))
    runner: Runner[LinkRequest] = Runner(NullEngine(), True, lambda _: None, time.monotonic)
    ends = [Front(LinkMemory(memory, LAYOUT), wake) for memory in memories]
    turns, model = cycle(ends), Model(queue.number)
    for front in islice(turns, backlog):
        front.send(model)
    taken = []
    for _ in range(UNTIMED + rounds):
        for front in islice(turns, batch):
            front.send(model)
        start = time.perf_counter()
        decision = queue.take()
        assert decision is not None
        runner(decision)
        taken.append(time.perf_counter() - start)
        assert len(decision.run) == batch
        for front in ends:
            front.link.consume()
    for descriptor in (wake, *wakes, *memories):
        os.close(descriptor)
    return statistics.median(taken[UNTIMED:]) * 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument(
        "--gate", action="store_true", help="measure the bars alone, and fail above"
    )
    options = parser.parse_args()
    # As the worker process does.
    collect_seldom()
    if options.gate:
        found = {case: measure(*case, options.rounds) for case in BARS}
        for (fronts, batch, backlog), us in found.items():
            bar = BARS[fronts, batch, backlog]
            print(f"{fronts} fronts, {batch} requests, backlog {backlog}: {us:.0f} of {bar:.0f} us")
        return int(any(us > BARS[case] for case, us in found.items()))
    print("| fronts, backlog | " + " | ".join(map(str, SIZES)) + " |")
    print("| --- |" + " ---: |" * len(SIZES))
    for backlog in (0, 2000):
        for fronts in (1, 4):
            cells = [f"{measure(fronts, size, backlog, options.rounds):.0f}" for size in SIZES]
            print(f"| {fronts}, {backlog} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
