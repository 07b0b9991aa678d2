"""The stand-in for the CUDA driver as tests see it: what it holds, what was called, what fails."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any

import numpy as np
from inferd_engines.engine import Array

from tests.device.library import load

DEFERRED, EAGER, WITHIN, IDLE = 0, 1, 2, 3
"""When streams work: once somebody waits, at once on their own threads, or within each call; and
within each call without what TensorRT computes."""
KEEP_ALL, NO_RUN, NOTHING = 0, 1, 2
"""What of a capture becomes the graph."""
POISON = 0xA5

INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, INVALID_HANDLE = 1, 2, 100, 400
ILLEGAL_ADDRESS, LAUNCH_FAILED, OPERATING_SYSTEM, UNKNOWN = 700, 719, 304, 999
"""Codes of the driver API."""


class Standin:
    """The one stand-in of this process. What it counts is counted from the making of this."""

    def __init__(self, *, afresh: bool = True) -> None:
        """Forget what earlier tests asked for; without `afresh`, nothing is forgotten.

        Raises:
            Missing: it cannot be had here.
        """
        self.library = load()
        if afresh:
            self._begin_afresh()
        self._before = {what: self._held(what) for what in KINDS}

    def held(self, what: str = "bytes") -> int:
        """Return what was taken and not given back."""
        return self._held(what) - self._before[what]

    def leaks(self) -> dict[str, int]:
        """Return everything that was taken and not given back."""
        return {what: count for what in KINDS if (count := self.held(what))}

    def calls(self, name: str) -> int:
        """Return how often a function was called, in all."""
        return int(self.library.standin_calls(name.encode()))

    def fail(self, name: str, code: int, nth: int = 1, times: int = 1) -> None:
        """Let the n-th call of a function from now on fail, and those after it up to `times`.

        Codes that stick break the context.
        """
        self.library.standin_fail(name.encode(), nth, times, code)

    def fail_wait(self, code: int) -> None:
        """Let the next wait for a stream or an event fail, and nothing after it."""
        self.library.standin_fail_wait(code)

    def break_context(self, code: int = ILLEGAL_ADDRESS, device: int = 0) -> None:
        """Let every call fail from now on."""
        self.library.standin_break(device, code)

    def mend(self) -> None:
        """Forget all errors, which no driver does."""
        self.library.standin_forget()

    def limit(self, nbytes: int) -> None:
        """Let the device have as much memory besides what earlier tests hold."""
        self.library.standin_limit(nbytes + self._before["bytes"])

    def devices(self, count: int, init: int = 0) -> None:
        """Let the host have so many; `init` is what starting the driver fails with."""
        self.library.standin_devices(count, init)

    def pace(self, when: int) -> None:
        """Say when streams work."""
        self.library.standin_pace(when)

    def keep(self, what: int) -> None:
        """Say what of a capture becomes the graph."""
        self.library.standin_keep(what)

    @property
    def broken(self) -> bool:
        """True if a context is broken, whose process had to end."""
        return bool(self.library.standin_broken())

    def event_flags(self) -> int:
        """Return the flags of the event that was made last."""
        return int(self.library.standin_event_flags())

    @property
    def launches(self) -> int:
        """Graphs that were launched, in all."""
        return int(self.library.standin_launches())

    @property
    def depth(self) -> int:
        """Contexts on this thread's stack."""
        return int(self.library.standin_depth())

    @property
    def violations(self) -> int:
        """Uses of what was gone."""
        return int(self.library.standin_violations())

    def pinned(self, array: Array) -> bool:
        """True if copies of an array run beside the host."""
        return bool(self.library.standin_pinned(array.ctypes.data, array.nbytes))

    def view(self, address: int, nbytes: int) -> Array | None:
        """Return device memory, for what computes on a stream; None where there is none."""
        found = self.library.standin_view(address, nbytes)
        if not nbytes:
            return np.empty(0, np.uint8)
        return None if not found else bytes_at(found, nbytes)

    def capturing(self, stream: int) -> bool:
        """True while a stream is captured."""
        return bool(self.library.standin_capturing(stream))

    def call_on(self, stream: int, function: Any, number: int) -> int:
        """Have a function called with a number once the stream comes to it; 0 if it will be."""
        return int(self.library.cuLaunchHostFunc(stream, function, number))

    def _begin_afresh(self) -> None:
        broken = self.library.standin_broken()
        self.library.standin_forget()
        if broken:
            # What such a test could not give back.
            gc.collect()

    def _held(self, what: str) -> int:
        return int(self.library.standin_held(what.encode()))


KINDS = ("bytes", "pinned", "registered", "streams", "events", "graphs")


def bytes_at(address: int, nbytes: int) -> Array:
    """Return memory of this process as an array."""
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


@cache
def device(index: int = 0) -> Any:
    """Return the one object for a device of the stand-in, as a process has it."""
    from inferd_engines.tensorrt.device import load_driver, open_device

    load().standin_devices(index + 1, 0)
    try:
        return open_device(load_driver(), index)
    finally:
        load().standin_devices(1, 0)
