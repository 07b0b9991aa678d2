"""The memory of this process: what it holds, and giving back what nobody uses."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

STATM = Path("/proc/self/statm")
STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Return the bytes that are in memory; 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def peak_bytes() -> int:
    """Return the most bytes that were in memory at a time; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, IndexError, ValueError, StopIteration):
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
