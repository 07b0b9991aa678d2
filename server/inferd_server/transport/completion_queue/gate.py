"""The lock under which operations of gRPC core start, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Keeps operations from a queue that was shut down: core would abort the process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open = True
        self.unread = 0.0
        """Seconds for which calls that come now lay unread, as far as one can know."""
        self.kept: list[Callable[[], object]] | None = None
        """What would end calls, while that has to wait; None: it need not."""

    def close(self) -> None:
        """Let no further operation start."""
        with self.lock:
            self.open = False

    def keep(self) -> None:
        """Let what ends calls wait from now on."""
        with self.lock:
            self.kept = []

    def release(self) -> None:
        """Start what waited."""
        with self.lock:
            kept, self.kept = self.kept, None
            for start in kept or ():
                start()
