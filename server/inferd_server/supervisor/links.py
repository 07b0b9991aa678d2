"""The links of all fronts: memory and descriptors, held here so that they outlive any process."""

from __future__ import annotations

import os

from inferd_server.control.messages import Place
from inferd_server.link.layout import Layout
from inferd_server.link.memory import LinkMemory, create
from inferd_server.settings.model import Settings


class Links:
    """Shared memory between every front and the worker; freed with the last process."""

    def __init__(self, count: int, layout: Layout) -> None:
        self.count = count
        self._layout = layout
        self._memories = tuple(create(layout) for _ in range(count))
        self._mapped = [LinkMemory(memory, layout) for memory in self._memories]
        self._wake_fronts = tuple(os.eventfd(0) for _ in range(count))
        # Not blocking: several threads of the worker may read what one of them was woken for.
        self._wake_worker = os.eventfd(0, os.EFD_NONBLOCK)

    def reset(self, link: int) -> None:
        """Begin a link anew; neither front nor worker may be at work on it."""
        self._mapped[link].reset()

    def for_worker(self, settings: Settings, address: str) -> tuple[Place, tuple[int, ...]]:
        """Return the worker's place, and the descriptors to inherit."""
        place = Place(
            settings,
            0,
            self._layout,
            self._memories,
            self._wake_fronts,
            self._wake_worker,
            address,
        )
        return place, (*self._memories, *self._wake_fronts, self._wake_worker)

    def for_front(
        self, link: int, settings: Settings, address: str, probe_address: str = ""
    ) -> tuple[Place, tuple[int, ...]]:
        """Return a front's place, and the descriptors to inherit."""
        memory, wake = self._memories[link], self._wake_fronts[link]
        memories, wakes = (memory,), (wake,)
        place = Place(
            settings,
            link,
            self._layout,
            memories,
            wakes,
            self._wake_worker,
            address,
            probe_address=probe_address,
        )
        return place, (memory, wake, self._wake_worker)

    def for_replica(self, index: int, settings: Settings, address: str, probe: str) -> Place:
        """Return the place of a replica, which has no link and inherits nothing."""
        wake = self._wake_worker
        return Place(settings, index, self._layout, (), (), wake, address, probe_address=probe)
