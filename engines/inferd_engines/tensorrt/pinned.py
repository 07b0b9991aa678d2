"""Memory of others that the GPU may read in place, because the driver has locked its pages."""

from __future__ import annotations

import logging
import mmap
import resource
import threading
from dataclasses import dataclass

import numpy as np

from inferd_engines.engine import Array
from inferd_engines.tensorrt.libcuda import DriverError, Libcuda

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Range:
    """Whole pages that are locked; from `start` on, before `end`."""

    start: int
    end: int
    pages: Array
    """Keeps the memory as long as it is locked."""
    holders: int = 1

    def covers(self, start: int, nbytes: int) -> bool:
        """True if all of these bytes are locked."""
        return self.start <= start and start + nbytes <= self.end


class HostMemory:
    """What is locked for one device: every page once, whoever needs it. Any thread may call.

    With the device's context current.
    """

    def __init__(self, libcuda: Libcuda) -> None:
        """Begin with nothing."""
        self._libcuda = libcuda
        self._ranges: list[Range] = []
        self._lock = threading.Lock()

    def acquire(self, pages: Array) -> Range:
        """Lock pages, unless they are.

        Raises:
            DriverError: the driver refused.
        """
        start = address_of(pages)
        with self._lock:
            for found in self._ranges:
                if found.covers(start, pages.nbytes):
                    found.holders += 1
                    return found
            self._libcuda.register(start, pages.nbytes)
            self._ranges.append(Range(start, start + pages.nbytes, pages))
            return self._ranges[-1]

    def release(self, held: Range) -> None:
        """Let go of pages, which nothing may be reading any more; the last one unlocks them."""
        with self._lock:
            held.holders -= 1
            if not held.holders:
                self._ranges.remove(held)
                self._libcuda.unregister(held.start)


class Registered:
    """The memory that one engine may read in place. Used by the engine's thread."""

    def __init__(self, memory: HostMemory) -> None:
        """Begin with nothing; `memory` is that of the device."""
        self._memory = memory
        self._ranges: list[Range] = []

    def add(self, memory: Array) -> bool:
        """Have the whole pages of some memory locked; False, with the reason in the log, if not."""
        pages = whole_pages(memory)
        if not pages.nbytes:
            log.warning(
                "memory was not registered", extra={"why": "it is in pieces, or has no whole page"}
            )
            return False
        try:
            self._ranges.append(self._memory.acquire(pages))
        except DriverError as error:
            why = f"{error}{locked_at_most(pages.nbytes)}"
            log.warning("memory was not registered", extra={"why": why})
            return False
        return True

    def holds(self, array: Array) -> bool:
        """True if the GPU may read an array where it is: in one piece, all of it locked."""
        if not self._ranges or not array.flags.c_contiguous:
            return False
        start = address_of(array)
        return any(found.covers(start, array.nbytes) for found in self._ranges)

    def close(self) -> None:
        """Let go of all of it. Nothing may be reading it any more."""
        while self._ranges:
            self._memory.release(self._ranges.pop())


def locked_at_most(nbytes: int) -> str:
    """Say that the process may lock less than these bytes; "" if that is no obstacle."""
    most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if most == resource.RLIM_INFINITY or most >= nbytes:
        return ""
    return f"; this process may lock {most >> 10} KiB (ulimit -l), and {nbytes >> 10} are wanted"


def address_of(array: Array) -> int:
    """Return where an array begins."""
    return int(array.__array_interface__["data"][0])


def whole_pages(memory: Array) -> Array:
    """Return the bytes of the pages that lie in memory as a whole; none if it is in pieces."""
    if not memory.flags.c_contiguous:
        return np.empty(0, np.uint8)
    start, nbytes = address_of(memory), memory.nbytes
    first = -start % mmap.PAGESIZE
    last = (start + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    return memory.reshape(-1).view(np.uint8)[first : max(first, last)]
