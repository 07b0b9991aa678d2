"""Engines that run on the transport's thread: no hand-over between threads, no waiting for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from inferd_server.scheduler.decision import Decision
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.queue import BatchQueue

log = logging.getLogger(__name__)
Clock = Callable[[], float]

# While a batch runs inline, nobody reads sockets or answers health checks.
LONGEST_S = 0.002


def runs_inline(asked: str, instances: int, predictable: bool, batch_seconds: float | None) -> bool:
    """Decide whether a model runs on the transport's thread.

    Args:
        asked: "auto", "inline" or "threads".
        instances: of the model; several run beside each other, and need threads for it.
        predictable: every batch takes about as long: on the CPU, with shapes and work that
            requests cannot change.
        batch_seconds: what a full batch took at warm-up; None if that is not known.
    """
    if asked == "threads" or instances > 1:
        return False
    if asked == "inline":
        return True
    return predictable and batch_seconds is not None and batch_seconds <= LONGEST_S


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """A model's work, and what to do when it ends."""

    queue: BatchQueue[Job]
    run: Callable[[Decision[Job]], None]
    close: Callable[[], None]
    lost: Callable[[BaseException], None]


class InlineLoop:
    """Runs the batches of its guests, a turn at a time, whenever the transport is idle."""

    def __init__(self, clock: Clock) -> None:
        self.due = False
        """True while a guest has a full batch, which more requests would not make better."""
        self._clock = clock
        self._guests: tuple[Guest, ...] = ()
        self._lock = threading.Lock()

    def host(self, guest: Guest) -> None:
        """Run a guest's batches from now on."""
        with self._lock:
            self._guests = (*self._guests, guest)
        guest.queue.when_full(self._wanted)

    def turn(self) -> float | None:
        """Run at most one batch of each guest.

        Returns:
            Seconds until the next turn is due; 0 if more waits, None if nothing does.
        """
        # Whoever made it due may be gone by now.
        self.due = False
        if not self._guests:
            return None
        with self._lock:
            waits = [self._advance(guest) for guest in self._guests]
        return min((wait for wait in waits if wait is not None), default=None)

    def release(self, guest: Guest, timeout: float | None) -> bool:
        """Run what a guest still has, whose queue is closed, and close it.

        Returns:
            False if a batch does not end within `timeout` seconds.
        """
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return False
        try:
            while guest in self._guests and guest.queue.rows:
                self._advance(guest)
            self._remove(guest)
        finally:
            self._lock.release()
        return True

    def _wanted(self) -> None:
        self.due = True

    def _advance(self, guest: Guest) -> float | None:
        decision = guest.queue.poll()
        if not (decision.run or decision.drop):
            return None if decision.wake is None else max(0.0, decision.wake - self._clock())
        try:
            guest.run(decision)
        except BaseException as error:
            log.exception("an instance ended")
            self._remove(guest)
            guest.lost(error)
            return None
        return 0.0 if guest.queue.rows else None

    def _remove(self, guest: Guest) -> None:
        if guest in self._guests:
            self._guests = tuple(other for other in self._guests if other is not guest)
            guest.close()
