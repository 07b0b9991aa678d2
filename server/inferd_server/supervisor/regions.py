"""Shared memory regions of the whole server: every process that takes calls opens them."""

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
"""Seconds that a process gets to open a region."""


class Registry:
    """The regions by name. Any thread may call any method; one change at a time."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, region: Region, endpoints: Sequence[Child]) -> None:
        """Let every process open a region; all of them, or none.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: it has no name, there is no such object, or it is smaller than that.
            ShuttingDown: none is there to open it.
        """
        if not region.name:
            raise InvalidInput("a shared memory region needs a name")
        with self._lock:
            if region.name in self._regions:
                raise AlreadyExists(f"shared memory region {region.name!r} is registered already")
            try:
                opened = answers([child.channel.ask(region) for child in endpoints], ANSWER_S)
            except InferdError:
                self._forget(NoRegion(region.name), endpoints)
                raise
            if not opened:
                raise ShuttingDown("no process answers; try again")
            self._regions[region.name] = region

    def unregister(self, name: str, endpoints: Sequence[Child]) -> None:
        """Let every process forget a region."""
        with self._lock:
            self._regions.pop(name, None)
            self._forget(NoRegion(name), endpoints)

    def unregister_all(self, endpoints: Sequence[Child]) -> None:
        """Let every process forget all regions."""
        with self._lock:
            self._regions.clear()
            self._forget(NoRegions(), endpoints)

    def tell(self, child: Child) -> None:
        """Let a new process know all of them."""
        with self._lock:
            for region in self._regions.values():
                child.channel.tell(region)

    def _forget(self, message: NoRegion | NoRegions, endpoints: Sequence[Child]) -> None:
        answers([child.channel.ask(message) for child in endpoints], ANSWER_S)
