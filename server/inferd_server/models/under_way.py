"""Loads and unloads under way: one at a time for each model, and a bounded number of loads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UnderWay:
    """Lets changes of one model wait for each other, and never for those of another model.

    Every method may be called from any thread.
    """

    def __init__(self, most_loads: int) -> None:
        """Begin with none; `most_loads` may open engines side by side."""
        self._slots = threading.BoundedSemaphore(most_loads)
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Change a model while nobody else changes it."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(name)
                self._changed.notify_all()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Open engines, beside at most so many others who do."""
        with self._slots:
            yield

    def ended(self, timeout: float | None) -> bool:
        """Wait until nothing is under way; False if something is after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout)
