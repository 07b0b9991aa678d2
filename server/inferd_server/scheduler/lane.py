"""A lane: a ring of rows of one shape, in which requests are neighbours."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from inferd_server.scheduler.rows import Rows


@dataclass(slots=True)
class Segment:
    """Consecutive rows of a lane that one slot holds."""

    start: int
    rows: int
    freed: bool = False


class Lane:
    """A ring of rows of one shape. Rows come back in any order."""

    def __init__(self, place: Rows, capacity: int) -> None:
        self.capacity = capacity
        self.place = place
        self.arrays = place.arrays
        self._objects = tuple(array for array in self.arrays if array.dtype.hasobject)
        self._segments: deque[Segment] = deque()
        self._by_start: dict[int, Segment] = {}
        self._head = 0

    @property
    def idle(self) -> bool:
        """True when no row is held."""
        return not self._segments

    def reserve(self, rows: int) -> int | None:
        """Return the first of `rows` consecutive free rows, or None."""
        start = self._place(rows)
        if start is None:
            return None
        segment = Segment(start, rows)
        self._segments.append(segment)
        self._by_start[start] = segment
        self._head = start + rows
        return start

    def release(self, start: int) -> None:
        """Give a reservation back."""
        segment = self._by_start.pop(start)
        segment.freed = True
        for array in self._objects:
            # Payloads must not live on in rows that nobody holds.
            array[start : start + segment.rows] = None
        while self._segments and self._segments[0].freed:
            self._segments.popleft()

    def _place(self, rows: int) -> int | None:
        if not self._segments:
            return 0 if rows <= self.capacity else None
        tail = self._segments[0].start
        if self._segments[-1].start < tail:
            return self._head if self._head + rows <= tail else None
        if self._head + rows <= self.capacity:
            return self._head
        return 0 if rows <= tail else None
