"""The memory that fronts and workers share, and what each process inherits of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product

from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.messages import ProcessPlace
from inferd_server.settings.model import Settings

BLOCK = 512
"""Bytes of st_blocks. Source: inode(7)."""
Pair = tuple[int, int]
"""A link: index of its front, and of its worker."""


class Links:
    """A link between every front and every worker; all are freed with the last process.

    Inputs lie in memory of the front, which its links share: a request may go to any worker.
    """

    def __init__(self, fronts: int, layout: Layout, workers: int = 1) -> None:
        """Make the memory; none where there are replicas, which have no front."""
        self.fronts = fronts
        self.workers = workers
        self._layout = layout
        self._memories = {pair: create(layout) for pair in product(range(fronts), range(workers))}
        self._mapped = {pair: LinkMemory(one, layout) for pair, one in self._memories.items()}
        self._wake_fronts = tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(fronts))
        # Not blocking: several threads of a worker may read what one of them was woken for.
        self._wake_workers = tuple(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(workers))

    @property
    def pairs(self) -> Iterable[Pair]:
        """All links."""
        return self._memories.keys()

    @property
    def nbytes(self) -> int:
        """Bytes of them that are in use: memory that was never written takes none."""
        return sum(os.fstat(one).st_blocks for one in self._memories.values()) * BLOCK

    def reset(self, front: int) -> None:
        """Begin a front's links anew; neither it nor any worker may be at work on them."""
        for worker in range(self.workers):
            self._mapped[front, worker].reset()

    def for_worker(
        self, settings: Settings, address: str, worker: int = 0
    ) -> tuple[ProcessPlace, tuple[int, ...]]:
        """Return a worker's place, and the descriptors to inherit."""
        links = tuple(self._memories[front, worker] for front in range(self.fronts))
        inputs = tuple(self._memories[front, 0] for front in range(self.fronts))
        wakes = self._wake_fronts, (self._wake_workers[worker],)
        place = ProcessPlace(settings, worker, self._layout, links, *wakes, address, inputs=inputs)
        return place, tuple({*links, *inputs, *self._wake_fronts, *wakes[1]})

    def for_front(
        self, front: int, settings: Settings, address: str, probe_address: str = ""
    ) -> tuple[ProcessPlace, tuple[int, ...]]:
        """Return a front's place, and the descriptors to inherit."""
        links = tuple(self._memories[front, worker] for worker in range(self.workers))
        inputs, wakes = links[:1] * self.workers, ((self._wake_fronts[front],), self._wake_workers)
        place = ProcessPlace(
            settings, front, self._layout, links, *wakes, address, probe_address, inputs
        )
        return place, (*links, *wakes[0], *wakes[1])

    def for_replica(self, index: int, settings: Settings, address: str, probe: str) -> ProcessPlace:
        """Return the place of a replica, which has no link and inherits nothing."""
        return ProcessPlace(settings, index, self._layout, (), (), (), address, probe)
