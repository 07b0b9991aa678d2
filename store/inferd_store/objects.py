"""Objects by key, on disk or in object storage: what a store is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from inferd_store.errors import Conflict, NotAStore, StoreError
from inferd_store.release import FORMAT, packed

Progress: TypeAlias = Callable[[int], None]
"""Gets the bytes that were moved since it was called last."""


def nothing(_: int) -> None:
    """Show no progress."""


class Watch(NamedTuple):
    """Whoever watches a long transfer."""

    moved: Progress = nothing
    expected: Progress = nothing
    """Gets bytes that are going to be moved besides those it was told of."""


UNWATCHED = Watch()
ABSENT = ""
"""The etag of an object that is not there."""
ANY = "*"
"""The etag of whatever is there, or of nothing."""
CHUNK = 2**20
"""Bytes that are moved at a time."""
URL = re.compile(r"[a-z][a-z0-9+.-]*://")


class Found(NamedTuple):
    """A small object as it is now."""

    data: bytes
    etag: str


class Entry(NamedTuple):
    """An object in a list."""

    key: str
    etag: str
    size: int
    modified: float
    """Seconds since the epoch."""


class Objects(Protocol):
    """Objects by key, such as "models/digits.json". Any thread may call.

    Every method raises a `StoreError` that says what to do: `ReadOnly`, `StoreFull`,
    `AccessDenied`, `Unreachable`; and those it names.
    """

    @property
    def address(self) -> str:
        """The folder or URL, as people write it."""

    def get(self, key: str) -> Found:
        """Return a small object.

        Raises:
            NotThere: there is none.
        """

    def put(self, key: str, data: bytes, etag: str) -> None:
        """Write a small object, all of it or nothing, if it is as `etag` says.

        Args:
            key: of the object.
            data: its content.
            etag: of the object that is replaced; ABSENT: there must be none; ANY: whatever is.

        Raises:
            Conflict: the object is another one now.
        """

    def write(self, key: str, parts: Iterator[bytes]) -> None:
        """Write a large object, in place of whatever is there; it is there once it is whole.

        Args:
            key: of the object.
            parts: of its content; what they raise is raised, and nothing is written.
        """

    def read(self, key: str, start: int) -> Iterator[bytes]:
        """Return the content from a byte on, in parts.

        Raises:
            NotThere: there is none.
        """

    def look(self, key: str) -> Entry | None:
        """Return what a list would say of one object; None if it is not there."""

    def list(self, prefix: str) -> list[Entry]:
        """Return the objects whose keys begin so, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def freshen(self, key: str) -> bool:
        """Make an object as young as a new one; False where it has to be written anew for that."""

    def path(self, key: str) -> Path | None:
        """Return where an object lies as a file of this host; None where it lies elsewhere."""


def parts_of(file: Path, progress: Progress) -> Iterator[bytes]:
    """Return the content of a file of this host in parts, and tell of each.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with file.open("rb") as given:
            while part := given.read(CHUNK):
                yield part
                progress(len(part))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror}") from error


def is_url(address: str) -> bool:
    """True for the address of object storage."""
    return bool(URL.match(address))


def open_objects(address: str) -> Objects:
    """Return the objects at an address: a folder, s3://, gs:// or az://.

    Raises:
        StoreError: the address cannot be used.
    """
    if is_url(address):
        # Only here: the package it takes is in an extra.
        from inferd_store.remote import RemoteObjects

        return RemoteObjects(address)
    from inferd_store.local import LocalObjects

    return LocalObjects(Path(address))


def begin(objects: Objects, marker: str, what: str) -> None:
    """Write what marks a place, where nothing else is.

    Args:
        objects: of the place.
        marker: the key of what marks it.
        what: it becomes, as people call it.

    Raises:
        NotAStore: something else is there.
    """
    folder = objects.path("")
    if folder is not None and folder.exists():
        if not folder.is_dir():
            raise NotAStore(f"{folder} is a file; the folder of a {what} was expected")
        if any(not path.name.startswith(".") and path.name != "tmp" for path in folder.iterdir()):
            raise NotAStore(
                f"{folder} is no {what}, and there is something in it; give an empty or new folder"
            )
    try:
        objects.put(marker, packed({"format": FORMAT}), ABSENT)
    except Conflict:
        # Somebody else did just then.
        return
