"""Files of a store brought to this host: checked by their digest, and gone on with when cut off."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from inferd_store.errors import Damaged, StoreFull, Unreachable
from inferd_store.objects import CHUNK, Objects, Progress, nothing
from inferd_store.release import StoredFile

PARTIAL = ".part"
TRIES = 5
"""In a row, in which nothing more came."""
PAUSE_S = 0.2


def fetch(
    objects: Objects,
    file: StoredFile,
    target: Path,
    progress: Progress = nothing,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write a file of a store to this host; what came of it before is not fetched again.

    The target is there once it is whole and has the digest that it should have.

    Args:
        objects: of the store.
        file: its digest and size.
        target: where it goes; its beginning may lie beside it from a fetch that was cut off.
        progress: told of bytes that came.
        sleep: waits before a fetch that was cut off goes on.

    Raises:
        Damaged: its content is not what its digest says.
        StoreFull: there is no room for it here.
        StoreError: it cannot be had.
    """
    partial = target.with_name(target.name + PARTIAL)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as out:
            # Others may fetch the same into the same folder.
            fcntl.flock(out, fcntl.LOCK_EX)
            if not target.exists():
                _fill(objects, file, out, progress, sleep)
                if digest_of_file(partial) != file.digest:
                    out.truncate(0)
                    raise Damaged(f"{file.path} in {objects.address} is not what its digest says")
                partial.rename(target)
            elif out.tell() == 0:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreFull(f"{target} cannot be written: {error.strerror}") from error


def _fill(
    objects: Objects,
    file: StoredFile,
    out: BinaryIO,
    progress: Progress,
    sleep: Callable[[float], None],
) -> None:
    """Add to a file what it lacks."""
    if out.tell() > file.size:
        out.truncate(0)
    progress(out.tell())
    for part in read_on(objects, f"blobs/sha256/{file.digest}", out.tell(), file.size, sleep):
        out.write(part)
        progress(len(part))
    if out.tell() != file.size:
        got = out.tell()
        out.truncate(0)
        raise Damaged(f"{file.path} has {got} bytes in {objects.address}, not {file.size}")
    out.flush()
    os.fsync(out.fileno())


def read_on(
    objects: Objects,
    key: str,
    start: int,
    size: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bytes]:
    """Return an object's content from a byte on; it goes on where it was when it is cut off.

    Args:
        objects: that have it.
        key: of the object.
        start: the first byte.
        size: of the object; of one that is larger, a little more than that comes.
        sleep: waits before it goes on.

    Raises:
        StoreError: it cannot be had.
    """
    at, tries = start, 0
    while at < size:
        before = at
        try:
            for part in objects.read(key, at):
                at += len(part)
                yield part
                if at > size:
                    return
        except Unreachable:
            tries = 0 if at > before else tries + 1
            if tries >= TRIES:
                raise
            sleep(PAUSE_S * 2**tries)
        else:
            return


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def verified(path: Path, file: StoredFile) -> bool:
    """True if a file of this host is the one of a store."""
    try:
        return path.stat().st_size == file.size and digest_of_file(path) == file.digest
    except OSError:
        return False
