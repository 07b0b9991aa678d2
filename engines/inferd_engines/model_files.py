"""The files of a model version, read once: an engine that serves does not depend on them.

A file that an engine maps ends the process when it is truncated (SIGBUS), and one that is written
over in place changes answers. So engines are opened from bytes that nobody else can write to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from inferd_engines.engine import EngineError

SEALED = b"inferd seal "
"""How the files of sealed models begin."""


class FileState(NamedTuple):
    """A file as it was at one moment: another content has another state."""

    size: int
    modified: int
    """Nanoseconds."""
    inode: int


class FileReader(Protocol):
    """Reads the files of a model: as they lie there, or as somebody vouches for them."""

    @property
    def sealed(self) -> bool:
        """True if what it reads must not get to a disk."""

    def __call__(self, path: Path) -> tuple[bytes, FileState]:
        """Return the content of a file, and which state of it that was.

        Raises:
            OSError: it cannot be read.
            UntrustedFiles: it is not what it must be.
        """

    def protect(self, name: str, data: bytes) -> bytes:
        """Return what may be kept on a disk of something that was made of the files."""

    def reveal(self, name: str, data: bytes) -> bytes:
        """Return what was protected under that name.

        Raises:
            UntrustedFiles: it is something else.
        """


class PlainReader:
    """Reads files as they lie there."""

    sealed = False

    def __call__(self, path: Path) -> tuple[bytes, FileState]:
        """Return the content of a file, and which state of it that was.

        Raises:
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            state = state_of(os.fstat(file.fileno()))
            return file.read(), state

    def protect(self, name: str, data: bytes) -> bytes:
        """Return the data, of which nothing is secret."""
        del name
        return data

    def reveal(self, name: str, data: bytes) -> bytes:
        """Return the data."""
        del name
        return data


class ModelFiles:
    """A model file and what lies beside it. Used by one thread at a time."""

    def __init__(
        self,
        model: Path,
        roots: Sequence[Path] = (),
        room: Callable[[], int | None] = lambda: None,
        reader: FileReader | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            model: the model file; others are found relative to its folder.
            roots: folders, without links in their paths, that links may lead into; none: anywhere.
            room: returns the bytes of memory that this process can still take; None: unknown.
            reader: of the files; None: as they lie there.
        """
        self.model = model
        self._roots = roots
        self._room = room
        self._reader = reader or PlainReader()
        self._contents: dict[str, bytes] = {}
        self._states: dict[str, FileState] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all files that were read."""
        return sum(state.size for state in self._states.values())

    @property
    def sealed(self) -> bool:
        """True if the contents must not get to a disk."""
        return self._reader.sealed

    def protect(self, name: str, data: bytes) -> bytes:
        """Return what may be kept on a disk of something that was made of the files.

        Args:
            name: by which it is kept.
            data: it.
        """
        return self._reader.protect(name, data)

    def reveal(self, name: str, data: bytes) -> bytes:
        """Return what was protected under that name.

        Raises:
            UntrustedFiles: it is something else.
        """
        return self._reader.reveal(name, data)

    def again(self) -> ModelFiles:
        """Return the same files, not read yet, for another thread."""
        return ModelFiles(self.model, self._roots, self._room, self._reader)

    def content(self) -> bytes:
        """Return the bytes of the model file.

        Raises:
            EngineError: it cannot be read, or changed meanwhile.
        """
        return self.read(self.model.name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, the same ones each time.

        Args:
            name: relative to the model's folder.

        Raises:
            EngineError: it cannot be read, or a file that was read has changed meanwhile.
        """
        if name not in self._contents:
            self._check_place(self.model.parent / name)
            self._check_room(self.model.parent / name)
            try:
                self._contents[name], self._states[name] = self._reader(self.model.parent / name)
            except OSError as error:
                raise EngineError(
                    f"{self.model.parent / name} cannot be read: {error.strerror}"
                ) from error
            self._check()
        return self._contents[name]

    def digest(self) -> str:
        """Return the SHA-256 of every file that was read, names included; "" if none was."""
        if not self._contents:
            return ""
        digest = hashlib.sha256()
        for name in sorted(self._contents):
            # The model by its role, and the rest by the names that it refers to.
            told = "" if name == self.model.name else name
            digest.update(repr((told, self._states[name].size)).encode(errors="surrogateescape"))
            digest.update(hashlib.sha256(self._contents[name]).digest())
        return digest.hexdigest()

    def drop(self) -> None:
        """Give the memory back; what is read after this is read anew."""
        self._contents.clear()
        self._states.clear()

    def _check_place(self, path: Path) -> None:
        """Refuse a file that is a link to a place where none of a model may be.

        Raises:
            EngineError: it is.
        """
        real = Path(os.path.realpath(path))
        if self._roots and not any(real.is_relative_to(root) for root in self._roots):
            raise EngineError(
                f"{path} is a link to {real}, outside the model repository; link_folders names "
                "other folders that links may lead into"
            )

    def _check_room(self, path: Path) -> None:
        """Refuse a file for which there is no memory: the kernel would end this process.

        Raises:
            EngineError: what is read, and what an engine makes of it, cannot have room.
        """
        left = self._room()
        try:
            size = path.stat().st_size
        except OSError:
            return
        whole = self.nbytes + size
        if left is not None and size + whole > left:
            raise EngineError(
                f"there is no memory for {path}: the model's files have {whole >> 20} MiB so far, "
                f"an engine takes as much again, and {left >> 20} MiB are left"
            )

    def _check(self) -> None:
        """Refuse files of two generations: a graph with the weights of another one.

        Raises:
            EngineError: one that was read is another one now.
        """
        for name, before in self._states.items():
            try:
                now = state_of((self.model.parent / name).stat())
            except OSError:
                now = None
            if now != before:
                raise EngineError(
                    f"{self.model.parent / name} changed while the model was loaded: write new "
                    "files beside the old ones, rename them, and load the model again"
                )


def is_sealed(path: Path) -> bool:
    """Tell whether a file is one of a sealed model, as it lies there.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(SEALED)) == SEALED


def folder_states(folder: Path) -> dict[str, FileState]:
    """Return the state of every file in a folder, by its name.

    Raises:
        OSError: the folder cannot be read.
    """
    return {path.name: state_of(path.stat()) for path in folder.iterdir() if path.is_file()}


def state_of(status: os.stat_result) -> FileState:
    """Return what tells one content of a file from another."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)
