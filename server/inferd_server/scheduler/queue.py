"""The requests that wait for one model, shared by the front and the model's instances."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Generic, TypeVar

from inferd_server.scheduler.decision import Decision, Limits, Waiting, in_order, next_batch
from inferd_server.scheduler.stream_share import StreamShares

W = TypeVar("W", bound=Waiting)


class BatchQueue(Generic[W]):
    """Waiting requests, in the order in which they are due. Any thread may call any method."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        # Of each priority, in order of arrival.
        self._levels: list[dict[int, W]] = [{} for _ in range(limits.levels)]
        self._shares: StreamShares[W] = StreamShares()
        self._rows = 0
        self._closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Threads that wait; a model that is hosted inline has none to wake.
        self._takers = 0
        # Instances that have no thread while there is nothing to do; each is called to get one.
        self._parked: list[Callable[[], None]] = []

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        return self._rows

    @property
    def waiting_requests(self) -> int:
        """Requests that wait now for a run."""
        return sum(len(level) for level in self._levels) + self._shares.behind

    def submit(self, request: W) -> bool:
        """Add a request; False once the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            if request.stream is None or self._shares.admit(request, self._limits.max_rows):
                self._levels[request.level][id(request)] = request
            self._rows += request.rows
            if self._takers:
                self._changed.notify()
            elif self._parked:
                self._parked.pop()()
            return True

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Change the bounds of batches from now on."""
        with self._lock:
            delay = 0.0 if self._closed else max_delay
            self._limits = replace(self._limits, max_rows=max_rows, max_delay=delay)

    def withdraw(self, request: W) -> bool:
        """Take a request out; False if it stays, runs already or was never here.

        One of a sequence stays until its turn, in which whoever runs it learns that it does not.
        """
        if request.ordered:
            return False
        with self._lock:
            return self._remove(request)

    def take(self, patience: float | None = None) -> Decision[W] | None:
        """Block until there is something to run or to drop; None once closed and empty.

        Args:
            patience: seconds without any request after which an empty decision is returned.
        """
        held: float | None = None
        idle = False
        with self._lock:
            while True:
                now = self._clock()
                decision = self._decide(now)
                if decision.run or decision.drop:
                    self._leave(decision)
                    return decision if held is None else replace(decision, waited=now - held)
                if self._closed and not self._rows:
                    return None
                if decision.wake is None:
                    held = None
                    if idle:
                        return decision
                    idle = not self._wait(patience)
                else:
                    held = now if held is None else held
                    self._wait(max(0.0, decision.wake - now))

    def park(self, wake: Callable[[], None]) -> bool:
        """Call back, under the lock, with the next request or the end; False if that is now."""
        with self._lock:
            if self._rows or self._closed:
                return False
            self._parked.append(wake)
            return True

    def take_full(self) -> Decision[W] | None:
        """Return a batch that more requests would not make larger; None if there is none now."""
        with self._lock:
            if self._rows < self._limits.max_rows:
                return None
            decision = self._decide(self._clock())
            if not decision.full:
                return None
            self._leave(decision)
            return decision

    def poll(self) -> Decision[W]:
        """Return what there is to run or to drop now; `wake` says when to ask again."""
        with self._lock:
            decision = self._decide(self._clock())
            self._leave(decision)
            return decision

    def close(self) -> None:
        """Refuse new requests; those that wait are still handed out."""
        with self._lock:
            self._close()

    def drain(self) -> list[W]:
        """Close, and take out everything that waits."""
        with self._lock:
            self._close()
            left = [*self._ordered(), *self._shares.drain()]
            for level in self._levels:
                level.clear()
            self._rows = 0
            return left

    def _ordered(self) -> Iterable[W]:
        return in_order([level.values() for level in self._levels], self._limits.head_start)

    def _decide(self, now: float) -> Decision[W]:
        return next_batch(self._ordered(), now, self._limits)

    def _close(self) -> None:
        self._closed = True
        # No company will come any more.
        self._limits = replace(self._limits, max_delay=0.0)
        self._changed.notify_all()
        while self._parked:
            self._parked.pop()()

    def _wait(self, seconds: float | None) -> bool:
        """Wait for a change; False if none came in so many seconds."""
        self._takers += 1
        try:
            return self._changed.wait(seconds)
        finally:
            self._takers -= 1

    def _leave(self, decision: Decision[W]) -> None:
        for request in (*decision.run, *decision.drop):
            del self._levels[request.level][id(request)]
            self._rows -= request.rows
            if request.stream is not None:
                self._come_forward(request)
        if self._rows and self._takers:
            self._changed.notify()

    def _remove(self, request: W) -> bool:
        if self._levels[request.level].pop(id(request), None) is not None:
            if request.stream is not None:
                self._come_forward(request)
        elif request.stream is None or not self._shares.withdraw(request):
            return False
        self._rows -= request.rows
        return True

    def _come_forward(self, left: W) -> None:
        """Let the next requests of a stream wait among everybody's."""
        for request in self._shares.leave(left, self._limits.max_rows):
            self._levels[request.level][id(request)] = request
