"""Which CUDA errors end the process, and which only one batch."""

from __future__ import annotations

from enum import Enum

STICKY = (
    "an illegal memory access",
    "illegal address",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "invalid address space",
    "launch failed",
    "launch failure",
    "launch timed out",
    "hardware stack error",
    "device-side assert",
    "device side assert",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "context is destroyed",
    "fell off the bus",
    "device is lost",
    "cudaerrorillegaladdress",
    "cuda_error_illegal_address",
    "contained error",
)
"""Texts of errors after which every call fails, whoever makes it.

Source: CUDA driver API, CUresult, "this leaves the process in an inconsistent state".
"""
MEMORY = ("out of memory", "outofmemory", "cuda_error_out_of_memory", "cudaerrormemoryallocation")


class Fault(Enum):
    """What an error means for those who come after it."""

    STICKY = "sticky"
    """The context is gone: end the process, and clean nothing up, which would fail or hang."""
    MEMORY = "memory"
    """There was no room: a smaller batch may do."""
    BATCH = "batch"
    """This batch failed, and the next one may not."""


def classify(text: str) -> Fault:
    """Return what kind of fault a message tells of.

    Args:
        text: of an exception, or lines of TensorRT's logger.
    """
    low = text.lower()
    if any(known in low for known in STICKY):
        return Fault.STICKY
    if any(known in low for known in MEMORY):
        return Fault.MEMORY
    return Fault.BATCH
