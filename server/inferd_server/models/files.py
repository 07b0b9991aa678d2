"""The files of a model version: what tells whether they are those that were loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from inferd_server.models.layout import is_model_file


class FileState(NamedTuple):
    """A file of a version as it was at one moment: another content has another state."""

    name: str
    size: int
    modified: int
    """Nanoseconds."""
    inode: int
    changed: int
    """Nanoseconds, by a clock that nobody sets: another content may claim the same age."""


def file_states(folder: Path) -> list[FileState]:
    """List all files of a version, external data among them, sorted; links count as their targets.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            times = status.st_mtime_ns, status.st_ino, status.st_ctime_ns
            found.append(FileState(name, status.st_size, *times))
    return found


def link_roots(repository: Path, allowed: Sequence[Path], model: Path) -> tuple[Path, ...]:
    """Return the folders in which a version's files may lie, links followed.

    Args:
        repository: folder of the models, or the file of a single one, which may be a link itself.
        allowed: further folders.
        model: the file of a version, which may lie elsewhere: callers can bring files.
    """
    if is_model_file(repository):
        own = [repository.parent, repository.resolve().parent]
    else:
        # Whoever links a whole folder into the repository means all that is in it.
        own = [repository, model.parents[1], model.parent]
    return tuple(folder.resolve() for folder in (*own, *allowed))


class LoadedFiles:
    """The files of every version as they were when it was loaded. Any thread may call."""

    def __init__(self, repository: Path) -> None:
        """Begin with none.

        Args:
            repository: folder of the models, or the file of a single one.
        """
        self._repository = repository
        self._known: dict[tuple[str, int], list[FileState]] = {}

    def look(self, path: Path) -> list[FileState] | None:
        """Look at a version's files; None where that is not possible, or not only its own.

        Args:
            path: of its model file.
        """
        if is_model_file(self._repository):
            return None
        try:
            return file_states(path.parent)
        except OSError:
            return None

    def keep(self, name: str, version: int, states: list[FileState] | None) -> None:
        """Keep what a version was loaded from; None: nobody knows."""
        if states is None:
            self._known.pop((name, version), None)
        else:
            self._known[name, version] = states

    def unchanged(self, name: str, version: int, path: Path) -> bool:
        """True if a version's files are those that it was loaded from."""
        before = self._known.get((name, version))
        return before is not None and before == self.look(path)

    def missing(self, name: str, version: int, path: Path) -> bool:
        """True if a file of a version is not there: its model, or one that it was loaded from."""
        before = {state.name for state in self._known.get((name, version), ())}
        return not path.exists() or not before <= {state.name for state in self.look(path) or ()}
