"""Something read from a file, and read anew when the file has changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from inferd_server.errors import InferdError

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 1.0
"""Seconds between two looks at a file."""
Stamp: TypeAlias = tuple[int, int, int, int] | None


class Watched(Generic[T]):
    """Any thread may ask for the content; a file that cannot be used leaves the one before."""

    def __init__(self, path: Path, read: Callable[[Path], T], clock: Callable[[], float]) -> None:
        """Read the file.

        Args:
            path: of the file.
            read: raises an InferdError for a file that cannot be used.
            clock: monotonic seconds.

        Raises:
            InferdError: what `read` raises.
        """
        self._path = path
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        # Before the file is read: a change in between is found at the next look.
        self._stamp = stamp(path)
        self._looked = clock()
        self._content = read(path)

    def __call__(self) -> T:
        """Return the content, no older than `LOOK_S` behind the file."""
        if self._clock() - self._looked >= LOOK_S:
            self._look()
        return self._content

    def _look(self) -> None:
        with self._lock:
            now = self._clock()
            if now - self._looked < LOOK_S:
                return
            self._looked = now
            found = stamp(self._path)
            if found == self._stamp:
                return
            self._stamp = found
            try:
                self._content = self._read(self._path)
            except InferdError as error:
                log.error("a changed file is not used; the old one stays: %s", error)
            else:
                log.info("a changed file is used", extra={"file": str(self._path)})


def stamp(path: Path) -> Stamp:
    """Return what changes with a file's content, through links; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
