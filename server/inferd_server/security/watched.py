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
PATIENCE_S = 0.05
"""Seconds that who asks waits for a look: the file may lie on a file server that is gone."""
SLOW_S = 10.0
"""Seconds after which the log is told of a look that has not ended."""
Stamp: TypeAlias = tuple[int, int, int, int, int] | None


class WatchedFile(Generic[T]):
    """Any thread may ask for the content; a file that cannot be used leaves the one before.

    The file is looked at on a thread of its own, one look at a time: a look that does not end
    keeps nobody waiting, and leaves the content as it is.
    """

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
        self._look_over: threading.Event | None = None
        self._told = False

    def __call__(self) -> T:
        """Return the content, no older than `LOOK_S` behind the file."""
        if self._clock() - self._looked >= LOOK_S:
            self._begin_look()
        return self._content

    def _begin_look(self) -> None:
        with self._lock:
            now = self._clock()
            late = now - self._looked
            if self._look_over is not None and not self._look_over.is_set():
                if late >= SLOW_S and not self._told:
                    self._told = True
                    log.error("a file cannot be looked at; what was read stays: %s", self._path)
                return
            if late < LOOK_S:
                return
            self._looked, self._told = now, False
            over = self._look_over = threading.Event()
        threading.Thread(target=self._look, args=(over,), name="look", daemon=True).start()
        over.wait(PATIENCE_S)

    def _look(self, over: threading.Event) -> None:
        try:
            found = stamp(self._path)
            if found != self._stamp:
                self._stamp = found
                self._content = self._read(self._path)
                log.info("a changed file is used", extra={"file": str(self._path)})
        except InferdError as error:
            log.error("a changed file is not used; the old one stays: %s", error)
        finally:
            over.set()


def stamp(path: Path) -> Stamp:
    """Return what changes with a file's content, through links; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    # ctime, too: whoever writes a file anew may set its mtime back, and keep its size.
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
