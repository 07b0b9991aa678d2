"""The digest of a model's files: what the answers of a version depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """A file of a version as it was at one moment: another content has another state."""

    name: str
    size: int
    modified: int
    """Nanoseconds."""
    inode: int


def file_states(folder: Path) -> list[FileState]:
    """List all files of a version, external data among them, sorted.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            name = path.relative_to(folder).as_posix()
            found.append(FileState(name, status.st_size, status.st_mtime_ns, status.st_ino))
    return found


def digest_of(folder: Path, options: Mapping[str, str]) -> str:
    """Return the digest of a version's files, and of the options that its engine gets.

    Raises:
        OSError: something cannot be read.
    """
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    for state in file_states(folder):
        digest.update(repr((state.name, state.size)).encode(errors="surrogateescape"))
        with (folder / state.name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
