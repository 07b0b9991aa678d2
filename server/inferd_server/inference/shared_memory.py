"""System shared memory: regions that callers on this host registered, by name.

Regions are read and written through their file descriptor and never mapped: a caller
that shrinks an object under a mapping would end the server with SIGBUS.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

from inferd.tensors import Buffer

from inferd_server.errors import (
    AlreadyExists,
    InvalidInput,
    RegionNotFound,
    ResourceExhausted,
)
from inferd_server.inference.validation import RegionRange

# What shm_open accepts on Linux: one name without another slash, dots alone excluded.
KEY = re.compile(r"/?(?!\.{1,2}$)[^/\0]{1,255}")


class Region:
    """A part of an open shared memory object; closed when nothing refers to it."""

    def __init__(self, descriptor: int, name: str, key: str, offset: int, byte_size: int) -> None:
        self.name = name
        self.key = key
        self.offset = offset
        self.byte_size = byte_size
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` from the region.

        Raises:
            InvalidInput: the object has shrunk since it was registered.
        """
        done = 0
        while done < len(target):
            # One call reads a little less than 2 GiB at most.
            count = os.preadv(self._descriptor, [target[done:]], self.offset + offset + done)
            if count == 0:
                raise self._shrunk()
            done += count

    def write(self, data: Buffer, offset: int) -> None:
        """Copy `data` into the region.

        Raises:
            InvalidInput: the object has shrunk since it was registered.
            ResourceExhausted: the host has no memory left for it.
        """
        start = self.offset + offset
        if os.fstat(self._descriptor).st_size < start + len(data):
            # Writing would make it longer again, where its owner does not look.
            raise self._shrunk()
        done, view = 0, memoryview(data)
        try:
            while done < len(data):
                done += os.pwritev(self._descriptor, [view[done:]], start + done)
        except OSError as error:
            raise ResourceExhausted(
                f"shared memory object {self.key!r} cannot be written: {error.strerror}"
            ) from error

    def _shrunk(self) -> InvalidInput:
        return InvalidInput(f"shared memory object {self.key!r} has shrunk since registration")


class RegionTable:
    """Registered regions. Every method may be called from any thread.

    A region that is unregistered stays open until the last request that uses it ends.
    """

    def __init__(self, folder: Path = Path("/dev/shm")) -> None:  # noqa: S108 where Linux has it
        self._folder = folder
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open `byte_size` bytes at `offset` of the shared memory object `key`.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: no such object, or it is smaller than that.
        """
        if not name:
            raise InvalidInput("a shared memory region needs a name")
        with self._lock:
            if name in self._regions:
                raise AlreadyExists(f"shared memory region {name!r} is registered already")
            descriptor = open_object(self._folder, key, offset, byte_size)
            self._regions[name] = Region(descriptor, name, key, offset, byte_size)

    def unregister(self, name: str) -> None:
        """Forget one region; an unknown name is no error."""
        with self._lock:
            self._regions.pop(name, None)

    def unregister_all(self) -> None:
        """Forget all regions."""
        with self._lock:
            self._regions.clear()

    def status(self, name: str) -> Mapping[str, Region]:
        """Return one region, or all when the name is empty.

        Raises:
            RegionNotFound: no such region.
        """
        with self._lock:
            return {name: self._find(name)} if name else dict(self._regions)

    def find(self, part: RegionRange, owner: str) -> Region:
        """Return the region that holds a part.

        Raises:
            RegionNotFound: no such region.
            InvalidInput: the part reaches past its end.
        """
        with self._lock:
            region = self._find(part.region)
        if part.offset + part.byte_size > region.byte_size:
            raise InvalidInput(
                f"{owner} reaches to byte {part.offset + part.byte_size} of shared memory region "
                f"{part.region!r}, which has {region.byte_size}"
            )
        return region

    def _find(self, name: str) -> Region:
        try:
            return self._regions[name]
        except KeyError:
            raise RegionNotFound(f"shared memory region {name!r} is not registered") from None


def open_object(folder: Path, key: str, offset: int, byte_size: int) -> int:
    """Open a shared memory object and return its descriptor.

    Raises:
        InvalidInput: the key is not one, there is no such object, or it is too small.
    """
    if not KEY.fullmatch(key):
        raise InvalidInput(f"{key!r} is not the key of a shared memory object, such as '/images'")
    if byte_size == 0:
        raise InvalidInput(f"a region of shared memory object {key!r} needs at least 1 byte")
    try:
        descriptor = os.open(folder / key.lstrip("/"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidInput(
            f"shared memory object {key!r} cannot be opened: {error.strerror}"
        ) from error
    size = os.fstat(descriptor).st_size
    if offset + byte_size > size:
        os.close(descriptor)
        raise InvalidInput(
            f"shared memory object {key!r} has {size} bytes; "
            f"the region reaches to byte {offset + byte_size}"
        )
    return descriptor
