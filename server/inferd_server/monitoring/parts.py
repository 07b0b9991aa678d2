"""Parts of a recording that are not written yet, and when they are due."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from inferd.recording import Recorded

Version: TypeAlias = tuple[str, str]
"""Name and version of a model."""
WRITTEN_AHEAD = 4
"""Times the size of a part that may be held: what is filled, and what waits to be written."""


@dataclass(slots=True)
class RecordingPart:
    """Requests of one model version that will be one file."""

    version: Version
    since: float
    """When its first request came to it, in monotonic seconds."""
    requests: list[Recorded] = field(default_factory=list)
    nbytes: int = 0


class Parts:
    """The parts of all models: filled, full, and being written. One thread at a time."""

    def __init__(self, size: int, age: float) -> None:
        """Begin with none.

        Args:
            size: bytes at which a part is full.
            age: seconds after which it is due, full or not.
        """
        self._size = size
        self._age = age
        self._filling: dict[Version, RecordingPart] = {}
        self._full: deque[RecordingPart] = deque()
        self._held = 0

    @property
    def idle(self) -> bool:
        """True if nothing will be due."""
        return not (self._filling or self._full)

    @property
    def full(self) -> bool:
        """True if a part is due now because it is full."""
        return bool(self._full)

    def add(self, request: Recorded, nbytes: int, now: float) -> bool:
        """Take a request in; False if too much is held already.

        Args:
            request: to be written.
            nbytes: that it holds.
            now: monotonic seconds.
        """
        if self._held and self._held + nbytes > self._size * WRITTEN_AHEAD:
            return False
        version = request.model, request.version
        part = self._filling.setdefault(version, RecordingPart(version, now))
        part.requests.append(request)
        part.nbytes += nbytes
        self._held += nbytes
        if part.nbytes >= self._size:
            self._close(part)
        elif self._held > self._size * WRITTEN_AHEAD / 2 and not self._full:
            # Of many models none may ever be full.
            self._close(max(self._filling.values(), key=lambda one: one.nbytes))
        return True

    def due(self, now: float, *, all_of_them: bool = False) -> RecordingPart | None:
        """Return a part to be written, if one is full or old enough; `written` follows."""
        for part in list(self._filling.values()):
            if all_of_them or now - part.since >= self._age:
                self._close(part)
        return self._full.popleft() if self._full else None

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next part is due; None: none will be."""
        if self._full:
            return 0.0
        ends = [part.since + self._age for part in self._filling.values()]
        return max(0.0, min(ends) - now) if ends else None

    def written(self, part: RecordingPart) -> None:
        """Let a part go that is in the recording, or never will be."""
        self._held -= part.nbytes

    def _close(self, part: RecordingPart) -> None:
        del self._filling[part.version]
        self._full.append(part)
