"""A function called after some seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable


def after(seconds: float, task: Callable[[], None]) -> None:
    """Call a function later, on a thread of its own that keeps no process from ending."""
    timer = threading.Timer(seconds, task)
    timer.daemon = True
    timer.start()
