"""The cancellation of a call, and who wants to be told; the same for every transport."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellation:
    """Calls back once, however registering and cancelling meet. Safe from any thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self._callback: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back when cancelled: at once if that was before."""
        with self._lock:
            if not self.cancelled:
                self._callback = callback
                return
        callback()

    def forget(self) -> None:
        """Call nobody back any more: what asked for it refers to the call, and that to this."""
        with self._lock:
            self._callback = None

    def cancel(self) -> None:
        """Cancel, and call back if somebody asked for it."""
        with self._lock:
            self.cancelled = True
            callback, self._callback = self._callback, None
        if callback is not None:
            callback()
