"""Engines that run on the transport's thread: no hand-over between threads, no waiting for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inferd_engines.control_groups import text_of

from inferd_server.batching.decision import Decision
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue

log = logging.getLogger(__name__)
Clock = Callable[[], float]

# While a batch runs inline, nobody reads sockets, counts what arrives or answers health checks.
LONGEST_S, LONGEST_ASKED_S = 0.002, 0.02


MOST_TEXT = 20_000
"""Elements of text in a batch that runs inline: a request with more is read on another thread."""


def longest(asked: str) -> float:
    """Return the seconds that a full batch may take inline."""
    return LONGEST_ASKED_S if asked == "inline" else LONGEST_S


def why_not_inline(
    asked: str, instances: int, predictable: bool, batch_seconds: float | None
) -> str:
    """Say why a model does not run on the transport's thread; "" if it does.

    Args:
        asked: "auto", "inline" or "threads".
        instances: of the model; several run beside each other, and need threads for it.
        predictable: every batch takes about as long: on the CPU, with shapes and work that
            requests cannot change.
        batch_seconds: what a full batch took at warm-up; None if that is not known.
    """
    if asked == "threads":
        return "threads are asked for"
    if instances > 1:
        return f"{instances} instances run beside each other"
    if not predictable:
        return "requests decide how long its runs take"
    if batch_seconds is None:
        return "nobody knows how long its runs take"
    if batch_seconds > longest(asked):
        return f"a full batch takes {batch_seconds * 1000:.3g} ms"
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    """A model's work, and what to do when it ends."""

    queue: BatchQueue[Job]
    run: Callable[[Decision[Job]], None]
    close: Callable[[], None]
    lost: Callable[[BaseException], None]


class InlineLoop:
    """Runs the batches of its guests, one at a time; the transport is polled in between."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Whose turn it is comes first.
        self._guests: tuple[Guest, ...] = ()
        # The one that takes the turns, as the system knows it; 0: none did.
        self._thread = 0
        self._lock = threading.Lock()

    def host(self, guest: Guest) -> None:
        """Run a guest's batches from now on."""
        with self._lock:
            self._guests = (*self._guests, guest)

    def busy(self, _now: float) -> float:
        """Return the processor time of the thread that takes the turns; any thread may ask.

        Not of the engines alone: whatever else that thread does, they wait for it. 0 where the
        system does not tell.
        """
        told = text_of(Path(f"/proc/self/task/{self._thread}/schedstat")).split()
        return int(told[0]) / 1e9 if told else 0.0

    def turn(self) -> float | None:
        """Run at most one batch, of the guest that waits longest for its turn.

        Returns:
            Seconds until the next turn is due; 0 if more waits, None if nothing does.
        """
        if not self._guests:
            self._thread = threading.get_native_id()
            return None
        wakes: list[float] = []
        with self._lock:
            for index, guest in enumerate(self._guests):
                ran, wake = self._advance(guest)
                if ran:
                    self._rotate(guest, index)
                    return 0.0 if any(other.queue.rows for other in self._guests) else None
                if wake is not None:
                    wakes.append(wake)
        return max(0.0, min(wakes) - self._clock()) if wakes else None

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

    def _rotate(self, guest: Guest, index: int) -> None:
        """Let all others have their turn before this one, which had its own."""
        if len(self._guests) > 1 and guest in self._guests:
            self._guests = (*self._guests[index + 1 :], *self._guests[:index], guest)

    def _advance(self, guest: Guest) -> tuple[bool, float | None]:
        """Run a batch of a guest; tell whether there was one, and else when to ask again."""
        decision = guest.queue.poll()
        if not (decision.run or decision.drop):
            return False, decision.wake
        try:
            guest.run(decision)
        except BaseException as error:
            log.exception("an instance ended")
            self._remove(guest)
            guest.lost(error)
        return True, None

    def _remove(self, guest: Guest) -> None:
        if guest in self._guests:
            self._guests = tuple(other for other in self._guests if other is not guest)
            guest.close()
