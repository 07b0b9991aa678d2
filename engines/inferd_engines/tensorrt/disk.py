"""Files that appear as a whole or not at all, and locks that end with their holder."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file's lock among all processes; give False if somebody else has it.

    It is the kernel's (flock(2), which NFS knows, too), and ends with its holder, however that
    ends. The file is made, and stays.

    Args:
        path: of the file.
        wait: for the holder; otherwise give False at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield locked(descriptor, wait)
    finally:
        os.close(descriptor)


def locked(descriptor: int, wait: bool) -> bool:
    """Take a file's lock; False if somebody else has it and nobody shall wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of the one that is there; readers see the one or the other.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    made = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        write(made, data)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is on the disk before anybody refers to it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Let a renamed entry of a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text_of(value: Mapping[str, Any]) -> bytes:
    """Return JSON for people and programs."""
    return json.dumps(value, indent=2, sort_keys=True).encode()
