"""The lock under which operations of gRPC core start, and its end."""

from __future__ import annotations

import threading


class Gate:
    """Keeps operations from a queue that was shut down: core would abort the process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open = True

    def close(self) -> None:
        """Let no further operation start."""
        with self.lock:
            self.open = False
