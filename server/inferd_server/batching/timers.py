"""Calls back at given times: deadlines of requests, and patience with Redis."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from itertools import count

log = logging.getLogger(__name__)
SPARE = 64
"""Cancelled alarms that may stay before they are cleared away."""
LONGEST_S = 3600.0
"""Threads wait for finite times only."""


class Timer:
    """One call back to come."""

    __slots__ = ("_alarms", "callback")

    def __init__(self, alarms: Timers, callback: Callable[[], None]) -> None:
        self._alarms = alarms
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back, unless that has begun. Safe to call twice, and from any thread."""
        self._alarms.cancel(self)


class Timers:
    """Alarms in the order of their times. Every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float], *, threaded: bool = True) -> None:
        """Have none.

        Args:
            clock: monotonic seconds.
            threaded: ring on a thread that starts with the first alarm; else whenever somebody
                calls `ring`.
        """
        self._clock = clock
        self._threaded = threaded
        self._order = count()
        self._heap: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at a time, on a thread of the alarms; at once if it has passed."""
        alarm = Timer(self, callback)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), alarm))
            if self._thread is None and self._threaded and not self._closed:
                self._thread = threading.Thread(target=self._live, name="alarms", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is alarm:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Timer) -> None:
        """Forget an alarm."""
        with self._changed:
            if alarm.callback is None:
                return
            # What it refers to may be large.
            alarm.callback = None
            self._cancelled += 1
            if self._cancelled > SPARE and self._cancelled > len(self._heap) // 2:
                self._heap = [item for item in self._heap if item[2].callback is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def ring(self) -> float | None:
        """Call back whatever is due; return the time of the next alarm, None without one."""
        while True:
            with self._changed:
                callback = self._due()
                if callback is None:
                    return self._heap[0][0] if self._heap else None
            try:
                callback()
            except Exception:
                log.exception("an alarm failed")

    def close(self) -> None:
        """Ring no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _due(self) -> Callable[[], None] | None:
        while self._heap and self._heap[0][0] <= self._clock():
            _, _, alarm = heapq.heappop(self._heap)
            callback, alarm.callback = alarm.callback, None
            if callback is not None:
                return callback
            self._cancelled -= 1
        return None

    def _live(self) -> None:
        while True:
            self.ring()
            with self._changed:
                if self._closed:
                    return
                # Looked at again: an alarm may have come since.
                soon = self._heap[0][0] - self._clock() if self._heap else None
                if soon is None or soon > 0:
                    self._changed.wait(LONGEST_S if soon is None else min(soon, LONGEST_S))
