"""Objects by key, on disk or in object storage: what a store is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

Progress: TypeAlias = Callable[[int], None]
"""Gets the bytes that were moved since it was called last."""
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

    def upload(self, key: str, source: Path, progress: Progress) -> None:
        """Write a large object from a file; it is there once it is whole."""

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
