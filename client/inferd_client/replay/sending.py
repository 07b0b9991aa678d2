"""Sends the requests of a recording, several at a time, or when they came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from inferd.recording import Recorded
from inferd.tensors import Array

SEQUENCE = "sequence_id"
"""Of the requests that have to come one after the other."""
Outputs: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    index: int
    """In the order in which they came, from 0."""
    request: Recorded
    outputs: Outputs | None
    error: Exception | None = None
    late: float = 0.0
    """Seconds after its time at which it was sent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When requests are sent."""

    concurrency: int
    """So many at most await their answer."""
    speed: float
    """Times the pace of the recording; 0: as fast as they are answered."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    sleep: Callable[[float], None]


class Sender:
    """Sends one recording."""

    def __init__(
        self,
        send: Callable[[Recorded], Outputs],
        pace: Pace,
        ended: Callable[[Outcome], None],
    ) -> None:
        """Send nothing yet.

        Args:
            send: one request; called on several threads.
            pace: when.
            ended: gets each outcome; called on one thread at a time.
        """
        self._send = send
        self._pace = pace
        self._ended = ended
        self._places = threading.BoundedSemaphore(pace.concurrency)
        self._telling = threading.Lock()
        # The last request of each sequence under way.
        self._sequences: dict[object, Future[None]] = {}

    def run(self, requests: Iterable[tuple[int, Recorded]]) -> None:
        """Send all, each with its index, and return when all are answered.

        Raises:
            InferdError: the recording cannot be read further; what was sent is answered.
        """
        first: float | None = None
        began = self._pace.clock()
        with ThreadPoolExecutor(self._pace.concurrency, "replay") as pool:
            try:
                for index, request in requests:
                    first = request.at if first is None else first
                    late = self._place(began, request.at - first)
                    self._submit(pool, index, request, late)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _place(self, began: float, offset: float) -> float:
        """Wait for a request's time, and for a place; return the seconds that it is late."""
        pace = self._pace
        if not pace.speed:
            self._places.acquire()
            return 0.0
        due = began + offset / pace.speed
        if (left := due - pace.clock()) > 0:
            pace.sleep(left)
        self._places.acquire()
        return max(0.0, pace.clock() - due)

    def _submit(self, pool: ThreadPoolExecutor, index: int, request: Recorded, late: float) -> None:
        key = request.parameters.get(SEQUENCE)
        before = self._sequences.get(key) if key else None
        future = pool.submit(self._one, index, request, late, before)
        if key:
            self._sequences[key] = future
            future.add_done_callback(partial(self._forget, key))

    def _one(self, index: int, request: Recorded, late: float, before: Future[None] | None) -> None:
        try:
            if before is not None:
                # It was taken before this one, so that it has a thread.
                before.result()
            outcome = Outcome(index, request, *self._try(request), late)
            with self._telling:
                self._ended(outcome)
        finally:
            self._places.release()

    def _try(self, request: Recorded) -> tuple[Outputs | None, Exception | None]:
        try:
            return self._send(request), None
        except Exception as error:
            # What no server says, too, is what became of this request.
            return None, error

    def _forget(self, key: object, future: Future[None]) -> None:
        if self._sequences.get(key) is future:
            del self._sequences[key]
