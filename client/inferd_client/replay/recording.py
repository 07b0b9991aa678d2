"""A recording, read in the order in which its requests came."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TypeAlias

from inferd.recording import NPZ, PARQUET, PartName, Recorded, UnreadablePart, part_name, read_part
from inferd_store.errors import StoreError
from inferd_store.objects import is_url, open_objects

from inferd_client.errors import InvalidInput

Opened: TypeAlias = tuple[float, int, Recorded, Iterator[Recorded]]
"""When the next request of a part came, a number of its own, that request, and the others."""


class Recording:
    """The parts of a recording; only those are in memory that overlap in time."""

    def __init__(self, address: str) -> None:
        """Find the parts.

        Args:
            address: folder, URL, or one part's file.

        Raises:
            InvalidInput: nothing of that kind is there.
        """
        self._address = address
        only = "" if is_url(address) or not Path(address).is_file() else Path(address).name
        place = str(Path(address).parent) if only else address
        try:
            self._objects = open_objects(place)
            keys = [only] if only else [entry.key for entry in self._objects.list("")]
        except StoreError as error:
            raise InvalidInput(str(error)) from error
        named = ((part_name(key) or renamed(key, only), key) for key in keys)
        self._parts = sorted((name, key) for name, key in named if name is not None)
        if not self._parts:
            raise InvalidInput(f"{address} has no recording: no .{PARQUET} or .{NPZ} of inferd's")

    @property
    def requests(self) -> int:
        """How many requests there are, as far as the names of the parts tell."""
        return sum(name.requests for name, _ in self._parts)

    def __iter__(self) -> Iterator[Recorded]:
        """Return the requests in the order in which they came.

        Raises:
            InvalidInput: a part cannot be read.
        """
        numbers, waiting, opened = count(), deque(self._parts), list[Opened]()
        while waiting or opened:
            # A part is opened once its first request may be the next one.
            while waiting and (not opened or waiting[0][0].began <= opened[0][0]):
                self._advance(opened, next(numbers), self._read(*waiting.popleft()))
            if opened:
                _, number, request, rest = heapq.heappop(opened)
                yield request
                self._advance(opened, number, rest)

    @staticmethod
    def _advance(opened: list[Opened], number: int, rest: Iterator[Recorded]) -> None:
        following = next(rest, None)
        if following is not None:
            heapq.heappush(opened, (following.at, number, following, rest))

    def _read(self, name: PartName, key: str) -> Iterator[Recorded]:
        try:
            data = b"".join(self._objects.read(key, 0))
            yield from read_part(data, name.suffix)
        except (StoreError, UnreadablePart) as error:
            raise InvalidInput(f"{key} of {self._address} cannot be read: {error}") from error


def renamed(key: str, only: str) -> PartName | None:
    """Take a file that was named by hand for a part, if it is the one that was asked for."""
    suffix = key.rpartition(".")[2]
    return PartName(0.0, 0, suffix) if only and suffix in (PARQUET, NPZ) else None
