"""A thread for what would keep the transport's thread from everybody else for too long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from inferd_server.control.blocking import BlockingThread
from inferd_server.errors import MemoryBudgetExceeded

MOST_BYTES = 256 * 2**20
"""Of what waits for the thread."""


class SideThread:
    """A thread that does one thing after the other, begun with the first. Any thread may call."""

    def __init__(self, name: str, waits: str, most: int = MOST_BYTES) -> None:
        """Wait for nothing yet.

        Args:
            name: of the thread.
            waits: what waits for it, in words, such as "outputs wait to be classified".
            most: bytes that may wait.
        """
        self._name = name
        self._waits = waits
        self._most = most
        self._held = 0
        self._thread: BlockingThread | None = None
        self._lock = threading.Lock()

    def submit(self, nbytes: int, work: Callable[[], None]) -> None:
        """Do something soon.

        Args:
            nbytes: that it holds until then.
            work: must not raise.

        Raises:
            MemoryBudgetExceeded: too much waits already.
        """
        with self._lock:
            if self._held and self._held + nbytes > self._most:
                raise MemoryBudgetExceeded(f"{self._held} bytes of {self._waits}; {self._most} may")
            self._held += nbytes
            if self._thread is None:
                self._thread = BlockingThread(self._name)
                self._thread.start()
            self._thread.submit(partial(self._do, nbytes, work))

    def _do(self, nbytes: int, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._held -= nbytes
