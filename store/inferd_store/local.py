"""Objects as files of a folder: changed under a lock, and by renaming what is whole."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from inferd_store.errors import Conflict, NotAStore, NotThere, ReadOnly, StoreError, StoreFull
from inferd_store.objects import ABSENT, ANY, CHUNK, Entry, Found

LOCK = ".lock"
"""Held while an object is compared and replaced; the kernel lets go of it if its process dies."""
UNFINISHED = "tmp"
"""Folder of what is being written."""
OLD_S = 3600.0
"""Seconds after which what somebody left unfinished is deleted."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)


class LocalObjects:
    """Objects as files of one folder, which processes and hosts may share."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder, which need not be there."""
        self._folder = folder

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._folder)

    def get(self, key: str) -> Found:
        """Return a small object."""
        with self._reading(key), (self._folder / key).open("rb") as file:
            return Found(file.read(), etag_of(os.fstat(file.fileno())))

    def put(self, key: str, data: bytes, etag: str) -> None:
        """Write a small object, if it is as `etag` says."""

        def fill(file: BinaryIO) -> None:
            file.write(data)

        with self._writing():
            written = self._write(fill)
            try:
                with self._locked():
                    self._compare(key, etag)
                    self._place(written, key)
            finally:
                written.unlink(missing_ok=True)

    def write(self, key: str, parts: Iterator[bytes]) -> None:
        """Write a large object; it is there once it is whole."""

        def fill(file: BinaryIO) -> None:
            file.writelines(parts)

        with self._writing():
            written = self._write(fill)
            try:
                self._place(written, key)
            finally:
                written.unlink(missing_ok=True)

    def read(self, key: str, start: int) -> Iterator[bytes]:
        """Return the content from a byte on, in parts."""
        with self._reading(key), (self._folder / key).open("rb") as file:
            file.seek(start)
            while part := file.read(CHUNK):
                yield part

    def look(self, key: str) -> Entry | None:
        """Return what a list would say of one object; None if it is not there."""
        try:
            status = (self._folder / key).stat()
        except OSError:
            return None
        return Entry(key, etag_of(status), status.st_size, status.st_mtime)

    def list(self, prefix: str) -> list[Entry]:
        """Return the objects whose keys begin so, sorted by key."""
        top = self._folder / prefix.rpartition("/")[0]
        with self._reading(prefix):
            if not self._folder.is_dir():
                raise NotAStore(f"{self._folder} is no folder")
            files = [path for path in sorted(top.rglob("*")) if path.is_file()]
        keys = [path.relative_to(self._folder).as_posix() for path in files]
        found = [self.look(key) for key in keys if key.startswith(prefix)]
        return [entry for entry in found if entry is not None]

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._writing():
            (self._folder / key).unlink(missing_ok=True)

    def freshen(self, key: str) -> bool:
        """Make an object as young as a new one."""
        with self._writing():
            os.utime(self._folder / key)
        return True

    def path(self, key: str) -> Path | None:
        """Return the file of an object."""
        return self._folder / key

    def sweep(self, now: float) -> None:
        """Delete what others left unfinished long ago.

        Args:
            now: seconds since the epoch.
        """
        for path in (self._folder / UNFINISHED).glob("*"):
            with suppress(OSError):
                if path.stat().st_mtime < now - OLD_S:
                    path.unlink()

    def _write(self, fill: Callable[[BinaryIO], None]) -> Path:
        """Return a new file with a content that has reached the disk."""
        folder = self._folder / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid4().hex
        try:
            with path.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _place(self, written: Path, key: str) -> None:
        target = self._folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        written.rename(target)
        sync_folder(target.parent)

    def _compare(self, key: str, etag: str) -> None:
        if etag == ANY:
            return
        there = self.look(key)
        if etag != (ABSENT if there is None else there.etag):
            raise Conflict(f"{self._folder / key} was changed by somebody else meanwhile")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotThere(f"{self._folder / key} is not there") from error
        except OSError as error:
            text = f"{self._folder / key} cannot be read: {error.strerror}"
            raise StoreError(text) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise told(self._folder, error) from error


def told(folder: Path, error: OSError) -> StoreError:
    """Return what an error of writing means for people."""
    if error.errno in NO_ROOM:
        return StoreFull(f"there is no room left in {folder}: nothing was changed")
    if error.errno in NO_WRITING:
        return ReadOnly(f"{folder} cannot be written: {error.strerror}")
    return StoreError(f"{folder} cannot be written: {error.strerror}")


def etag_of(status: os.stat_result) -> str:
    """Return what tells one content of a file from the one before it: each is a file of its own."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
