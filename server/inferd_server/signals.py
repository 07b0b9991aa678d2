"""SIGTERM and SIGINT, as something to wait for."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The first SIGTERM or SIGINT asks to stop, the second to hurry.

    They come through a pipe that the interpreter writes to the moment a signal arrives. A
    handler written in Python would run only once the main thread does: never, if the signal
    arrived just before that thread began to wait for a lock.
    """

    def __init__(self) -> None:
        self._arrived, self._report = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._report, False)

    def install(self) -> None:
        """Take over the signals; main thread only."""
        signal.set_wakeup_fd(self._report, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _reported)

    def wake(self) -> None:
        """Let `wait` return without a signal; any thread."""
        os.write(self._report, bytes(1))

    def wait(self) -> None:
        """Block until a signal comes."""
        os.read(self._arrived, 1)

    def next(self) -> threading.Event:
        """Return an event that the next signal sets."""
        came = threading.Event()

        def wait() -> None:
            self.wait()
            came.set()

        threading.Thread(target=wait, name="signals", daemon=True).start()
        return came


def _reported(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: without a handler there would be no report."""
