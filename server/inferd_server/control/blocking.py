"""One thread for the methods that block, such as loading a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class BlockingThread:
    """Runs functions one after the other; they must not raise.

    A daemon, which `ThreadPoolExecutor` has no more: a load that takes minutes, or never
    ends, must not keep the process from ending.
    """

    def __init__(self, name: str = "blocking") -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._thread.start()

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function soon; not at all once stopped."""
        self._work.put(function)

    def stop(self, timeout: float) -> bool:
        """Run nothing more, and give what runs now `timeout` seconds. True if it ended."""
        self._stopped = True
        self._work.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _live(self) -> None:
        while True:
            function = self._work.get()
            if self._stopped:
                return
            function()
            # It may refer to a call, and the next one may come late.
            del function
