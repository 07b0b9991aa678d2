"""Memory: what this process holds, what limits leave it, and giving back what nobody uses."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from inferd_engines.control_groups import MEMBERSHIP, MOUNTED, Group, groups, text_of

STATM = Path("/proc/self/statm")
STATUS = Path("/proc/self/status")
HOST = Path("/proc/meminfo")


def resident_bytes() -> int:
    """Return the bytes that are in memory; 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def own_bytes() -> int:
    """Return the bytes in memory that no file or other process shares; 0: it is not told."""
    return _named(text_of(STATUS), "RssAnon:") << 10


def peak_bytes() -> int:
    """Return the most bytes that were in memory at a time; 0 where the system does not tell."""
    return _named(text_of(STATUS), "VmHWM:") << 10


def headroom_bytes(
    membership: Path = MEMBERSHIP, mounted: Path = MOUNTED, host: Path = HOST
) -> int | None:
    """Return the bytes that this process can still take before the kernel ends one; None: unknown.

    The least of what the host has and what the limits of our group and of its parents leave. What
    files keep in memory is given up for others, and counts as free.

    Args:
        membership: file of the groups that this process is in.
        mounted: folder in which groups are seen.
        host: file that tells of the host's memory.
    """
    left = [room for group in groups("memory", membership, mounted) for room in _left(group)]
    told = text_of(host)
    if "MemAvailable:" in told:
        left.append(_named(told, "MemAvailable:") << 10)
    return max(0, min(left)) if left else None


def out_of_memory_kills(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> int | None:
    """Return how many processes of our group ended for want of memory; None: nobody counts."""
    for group in groups("memory", membership, mounted):
        told = group.text("memory.events" if group.unified else "memory.oom_control")
        if "oom_kill " in told:
            return _named(told, "oom_kill")
    return None


def _left(group: Group) -> Iterator[int]:
    """Yield what a group's limit leaves, if it has one."""
    names = ("memory.max", "memory.current") if group.unified else (
        "memory.limit_in_bytes", "memory.usage_in_bytes",
    )  # fmt: skip
    limit, used = (group.text(name).strip() for name in names)
    if limit.isdigit() and used.isdigit():
        whole = "" if group.unified else "total_"
        stat = group.text("memory.stat")
        files = sum(_named(stat, f"{whole}{kind}_file") for kind in ("active", "inactive"))
        yield int(limit) - int(used) + files


def _named(text: str, name: str) -> int:
    """Return the number behind a name at the begin of a line; 0 if there is none."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0


def give_back() -> None:
    """Return what the allocator keeps for later, where it can be told to: glibc's can.

    Source: malloc_trim(3).
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


LOOK_S = 5.0
"""Time without any request after which a server is idle, at least; at most twice that."""
WORTHWHILE_BYTES = 64 << 20
"""Bytes of requests and answers since the last time, below which there is little to give back."""


class Idleness:
    """What is known of a server's traffic since memory was given back."""

    def __init__(self) -> None:
        self._seen = 0
        self._given_back_at = 0

    def over(self, total: int, held: int) -> bool:
        """Return True if it is time to give memory back.

        Args:
            total: bytes of requests and answers so far.
            held: bytes of them that are here now.
        """
        idle = total == self._seen and not held
        self._seen = total
        if not idle or total - self._given_back_at < WORTHWHILE_BYTES:
            return False
        self._given_back_at = total
        return True


class IdleHeap:
    """A thread that looks every few seconds."""

    def __init__(self, traffic: Callable[[], tuple[int, int]], trim: Callable[[], None]) -> None:
        """Prepare.

        Args:
            traffic: total and held bytes, see `Idleness.over`.
            trim: gives memory back.
        """
        self._traffic = traffic
        self._trim = trim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="idle-heap", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        idleness = Idleness()
        while not self._ended.wait(LOOK_S):
            if idleness.over(*self._traffic()):
                self._trim()
