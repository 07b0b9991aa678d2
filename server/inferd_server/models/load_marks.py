"""Marks of models that are being loaded: what is left of one tells the next start who ended it.

In several processes the supervisor knows (`worker_deaths`); a server of one process takes with it
what it knew, and whoever starts it again, systemd or Kubernetes, would have it end once more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inferd_server.models.verdict_store import write_whole

log = logging.getLogger(__name__)
LOADS = 2
"""Servers that a model may end while it is loaded, before it is left out."""
FORGOTTEN_S = 3600.0
"""Seconds after which a mark says nothing any more: the host itself may have been at fault."""


class LoadMarks:
    """A folder with a file for each model that is being loaded; it may be read-only."""

    def __init__(
        self, folder: Path | None, repository: Path, wall: Callable[[], float] = time.time
    ) -> None:
        """Keep where the marks are.

        Args:
            folder: of the marks; None: none are made.
            repository: the folder of the models.
            wall: seconds since the epoch.
        """
        self._folder = folder
        self._repository = repository
        self._wall = wall
        self._made: set[Path] = set()

    def left_out(self, names: Collection[str]) -> frozenset[str]:
        """Return the models, of these, that ended the last servers while they were loaded."""
        found = {name: self._ended(name) for name in names}
        for name, times in found.items():
            if times:
                told = {"model": name, "times": times}
                log.warning("a server ended while it loaded a model", extra=told)
        return frozenset(name for name, times in found.items() if times >= LOADS)

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """Mark a model while it is loaded."""
        if self._folder is None:
            yield
            return
        self._mark(self._folder, name)
        try:
            yield
        finally:
            self._remove(self._path(self._folder, name))

    def forget(self) -> None:
        """Remove all marks of this server: it ends because it was told to."""
        for path in tuple(self._made):
            self._remove(path)

    def _ended(self, name: str) -> int:
        """Return how many servers ended while a model was loaded that is as it was then."""
        if self._folder is None:
            return 0
        try:
            held = json.loads(self._path(self._folder, name).read_text(encoding="utf-8"))
            old = self._wall() - float(held["time"]) > FORGOTTEN_S
            return 0 if old or held["files"] != self._files(name) else int(held["servers"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _mark(self, folder: Path, name: str) -> None:
        about = {"model": name, "files": self._files(name), "time": self._wall()}
        text = json.dumps({**about, "servers": self._ended(name) + 1}, indent=2) + "\n"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path := self._path(folder, name), text)
            self._made.add(path)

    def _remove(self, path: Path) -> None:
        self._made.discard(path)
        with suppress(OSError):
            path.unlink()

    def _path(self, folder: Path, name: str) -> Path:
        whole = str(self._repository.absolute() / name)
        return folder / f"{hashlib.sha256(whole.encode()).hexdigest()}.json"

    def _files(self, name: str) -> str:
        """Return what changes with the files of a model."""
        single, lines = self._repository.is_file(), []
        with suppress(OSError):
            found = (self._repository / name).rglob("*")
            for path in [self._repository] if single else sorted(found):
                about = path.stat()
                lines.append(f"{path} {about.st_size} {about.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
