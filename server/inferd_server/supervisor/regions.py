"""Shared memory regions of the whole server: every front opens them, and so does a new one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from inferd_server.control.channel import answers
from inferd_server.control.messages import NoRegion, NoRegions, Region
from inferd_server.errors import AlreadyExists, InferdError, InvalidInput, ShuttingDown
from inferd_server.supervisor.spawn import Child

log = logging.getLogger(__name__)
ANSWER_S = 5.0
"""Seconds that a front gets to open a region."""


class Registry:
    """The regions by name. Any thread may call any method; one change at a time."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, region: Region, fronts: Sequence[Child]) -> None:
        """Let every front open a region; all of them, or none.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: it has no name, there is no such object, or it is smaller than that.
            ShuttingDown: no front is there to open it.
        """
        if not region.name:
            raise InvalidInput("a shared memory region needs a name")
        with self._lock:
            if region.name in self._regions:
                raise AlreadyExists(f"shared memory region {region.name!r} is registered already")
            try:
                opened = answers([front.channel.ask(region) for front in fronts], ANSWER_S)
            except InferdError:
                self._forget(NoRegion(region.name), fronts)
                raise
            if not opened:
                raise ShuttingDown("no front process answers; try again")
            self._regions[region.name] = region

    def unregister(self, name: str, fronts: Sequence[Child]) -> None:
        """Let every front forget a region."""
        with self._lock:
            self._regions.pop(name, None)
            self._forget(NoRegion(name), fronts)

    def unregister_all(self, fronts: Sequence[Child]) -> None:
        """Let every front forget all regions."""
        with self._lock:
            self._regions.clear()
            self._forget(NoRegions(), fronts)

    def tell(self, front: Child) -> None:
        """Let a new front know all of them."""
        with self._lock:
            for region in self._regions.values():
                front.channel.tell(region)

    def _forget(self, message: NoRegion | NoRegions, fronts: Sequence[Child]) -> None:
        answers([front.channel.ask(message) for front in fronts], ANSWER_S)
