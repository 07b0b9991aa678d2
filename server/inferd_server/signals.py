"""SIGTERM, SIGINT and SIGHUP, as something to wait for."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def hold() -> None:
    """Keep signals that ask to stop until somebody waits for them; main thread only.

    The kernel throws away what process 1 of a container has no handler for yet, and the server
    would never stop. What is held stays so when the command starts anew under the same process id.
    """
    # A thread that was there before would take them, and without a handler nothing came of it.
    for number in SIGNALS:
        signal.signal(number, _kept)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class StopSignals:
    """The first SIGTERM or SIGINT asks to stop, the second to hurry.

    They come through a pipe that the interpreter writes to the moment a signal arrives. A
    handler written in Python would run only once the main thread does: never, if the signal
    arrived just before that thread began to wait for a lock.

    SIGHUP asks to stop, too, where a terminal sends it that was closed. Elsewhere people mean
    "read your files again": that is said to be needless, and the server goes on.
    """

    def __init__(self) -> None:
        self._arrived, self._report = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._report, False)
        self._terminal = os.isatty(2)

    def install(self) -> None:
        """Take over the signals; main thread only."""
        signal.set_wakeup_fd(self._report, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _reported)
        # Who ignores it already, as below nohup, goes on doing so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _reported)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def wake(self) -> None:
        """Let `wait` return without a signal; any thread."""
        os.write(self._report, bytes(1))

    def wait(self) -> None:
        """Block until a signal comes that asks to stop."""
        while os.read(self._arrived, 1) == bytes((signal.SIGHUP,)) and not self._terminal:
            log.warning(
                "SIGHUP is ignored: certificates and identities are read whenever they change, "
                "settings at the start, and models when they are loaded by a call"
            )

    def next(self) -> threading.Event:
        """Return an event that the next signal sets."""
        came = threading.Event()

        def wait() -> None:
            self.wait()
            came.set()

        threading.Thread(target=wait, name="signals", daemon=True).start()
        return came


def _kept(number: int, _frame: FrameType | None) -> None:
    """Leave a signal that another thread took to the main thread, which holds it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def _reported(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: without a handler there would be no report."""
