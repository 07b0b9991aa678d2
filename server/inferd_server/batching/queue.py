"""The queue of one model version: its waiting requests, from which its instances take batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from inferd.tensors import Array

from inferd_server.batching.decision import (
    BatchBounds,
    Decision,
    Waiting,
    in_order,
    next_batch,
    next_steps,
)
from inferd_server.batching.fair_share import Turn
from inferd_server.batching.job import Job
from inferd_server.batching.run_costs import RunCosts
from inferd_server.batching.stream_share import StreamShares

W = TypeVar("W", bound=Waiting)


class RequestQueue(Protocol):
    """Where a model version's requests are sent: a queue of this process, or another one's.

    Any thread may call any method.
    """

    @property
    def waiting_requests(self) -> int:
        """Requests that wait here now for a run."""

    @property
    def rows(self) -> int:
        """Rows that wait now where the engines are."""

    def submit(self, request: Job) -> bool:
        """Add a request; False once the queue is closed."""

    def withdraw(self, request: Job) -> bool:
        """Take a request out that nobody waits for; True if the caller has to answer it."""

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Change the bounds of batches from now on; the delay in seconds."""

    def close(self) -> None:
        """Refuse new requests; those that wait are still handed out."""

    def drain(self) -> Sequence[Any]:
        """Close, and take out everything that waits, to be answered by the caller."""


class Sleepers:
    """Threads that wait for something to do, and each of which is woken once. Under one lock."""

    def __init__(self, lock: threading.Lock) -> None:
        self._changed = threading.Condition(lock)
        self.asleep: dict[int, None] = {}
        """Those that nobody has woken, in the order in which they came."""

    def wait(self, seconds: float | None) -> None:
        """Sleep until woken, or until the time is over; None: for ever."""
        me = threading.get_ident()
        self.asleep[me] = None
        try:
            self._changed.wait(seconds)
        finally:
            self.asleep.pop(me, None)

    def wake(self) -> bool:
        """Wake one more; False if all are awake, or will be."""
        if not self.asleep:
            return False
        # The first one, as the condition has it.
        del self.asleep[next(iter(self.asleep))]
        self._changed.notify()
        return True

    def wake_all(self) -> None:
        """Wake everybody."""
        self.asleep.clear()
        self._changed.notify_all()


class Inlet(Protocol):
    """Memory that other processes write requests into, for several queues.

    All of it is used under one lock, which is that of the queues, too.
    """

    @property
    def lock(self) -> threading.Lock:
        """Held while a method is called."""

    def collect(self, taker: BatchQueue[Any] | None = None) -> None:
        """Move what was written to the queues that it is for.

        Args:
            taker: tells itself how many rows wait in it, once it has taken some.
        """

    def wait(self, sleepers: Sleepers, seconds: float | None) -> None:
        """Wait until a queue changed, more was written or the time is over.

        Args:
            sleepers: of the queue of whoever waits.
            seconds: at most; None: for ever.
        """

    def rouse(self, sleepers: Sleepers) -> bool:
        """Wake whoever waits for what is written, if it is of this queue; False if it is not."""

    def hand_over(self) -> None:
        """Let another one wait for what is written, because whoever calls is busy now."""

    def changed(self, queue: BatchQueue[Any]) -> None:
        """Note that other rows wait in a queue than before."""

    def closed(self, queue: BatchQueue[Any]) -> None:
        """Let a queue get nothing more."""


class NoInlet:
    """Stands for an inlet where requests come by `submit` alone."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def collect(self, taker: BatchQueue[Any] | None = None) -> None:
        """Do nothing."""

    def wait(self, sleepers: Sleepers, seconds: float | None) -> None:
        """Wait until the queue changed or the time is over."""
        sleepers.wait(seconds)

    def rouse(self, sleepers: Sleepers) -> bool:
        """Return False: nobody waits for what others write."""
        del sleepers
        return False

    def hand_over(self) -> None:
        """Do nothing."""

    def changed(self, queue: BatchQueue[Any]) -> None:
        """Do nothing."""

    def closed(self, queue: BatchQueue[Any]) -> None:
        """Do nothing."""


class BatchQueue(Generic[W]):
    """Waiting requests, in the order in which they are due. Any thread may call any method."""

    def __init__(
        self,
        limits: BatchBounds,
        clock: Callable[[], float],
        inlet: Inlet | None = None,
        number: int = 0,
    ) -> None:
        """Begin with none.

        Args:
            limits: bounds of batches.
            clock: monotonic seconds.
            inlet: brings requests of other processes; None: they come by `submit` alone.
            number: by which other processes know the queue; 0: none does.
        """
        self.number = number
        self.costs = RunCosts(limits.sizes)
        """What runs took, as whoever runs batches tells."""
        self._limits = limits
        self._clock = clock
        self._inlet = NoInlet() if inlet is None else inlet
        # Of each priority, in order of arrival; then those that wait behind all others, if any may.
        self._levels: list[dict[int, W]] = [{} for _ in range(limits.levels + limits.delays)]
        self._shares: StreamShares[W] = StreamShares()
        # Sequences of which a request was taken that is not answered yet.
        self._at_work: set[int] = set()
        self._rows = 0
        # Since when whoever polls waits for a batch to fill, in monotonic seconds; None: does not.
        self._held: float | None = None
        # As others were told.
        self._told = 0
        self._closed = False
        self._lock = self._inlet.lock
        # A model that is hosted inline has no thread that sleeps.
        self._sleepers = Sleepers(self._lock)
        # Instances that have no thread while there is nothing to do; each is called to get one.
        self._parked: list[Callable[[], None]] = []

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        return self._rows

    @property
    def waiting_requests(self) -> int:
        """Requests that wait now for a run, those among them that nobody collected yet."""
        with self._lock:
            self._inlet.collect()
            return sum(len(level) for level in self._levels) + self._shares.behind

    @property
    def parked(self) -> bool:
        """True while an instance has no thread, and is called when there is something to do."""
        return bool(self._parked)

    def submit(self, request: W) -> bool:
        """Add a request; False once the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            if request.stream is None or self._shares.admit(request, self._limits.max_rows):
                self._levels[request.level][id(request)] = request
            self._rows += request.rows
            if self._sleepers.asleep or self._parked:
                self._wake()
            return True

    def extend(self, requests: Iterable[W]) -> None:
        """Add requests of no stream, in order of arrival. For the inlet, under the lock."""
        levels, rows = self._levels, 0
        for request in requests:
            levels[request.level][id(request)] = request
            rows += request.rows
        self._rows += rows
        self._wake()

    def tell(self) -> None:
        """Tell others how many rows wait, unless they know. For the inlet, under the lock."""
        if self.number and self._told != self._rows:
            self._told = self._rows
            self._inlet.changed(self)

    def discard(self, gone: Callable[[W], bool]) -> None:
        """Forget requests without an answer. For the inlet, under the lock.

        Those of sequences stay until their turn, as in `withdraw`.
        """
        for level in self._levels:
            for request in [request for request in level.values() if gone(request)]:
                if not request.sequence:
                    self._remove(request)

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Change the bounds of batches from now on."""
        with self._lock:
            delay = 0.0 if self._closed else max_delay
            self._limits = replace(self._limits, max_rows=max_rows, max_delay=delay)

    def withdraw(self, request: W) -> bool:
        """Take a request out; False if it stays, runs already or was never here.

        One of a sequence stays until its turn, in which whoever runs it learns that it does not.
        """
        if request.sequence:
            return False
        with self._lock:
            return self._remove(request)

    def take(self, patience: float | None = None, turn: Turn | None = None) -> Decision[W] | None:
        """Block until there is something to run or to drop; None once closed and empty.

        Args:
            patience: seconds without any request after which an empty decision is returned.
            turn: had once there is something to run; None: all engines may run at a time.
        """
        held: float | None = None
        until = None if patience is None else self._clock() + patience
        with self._lock:
            while True:
                self._inlet.collect(self)
                now = self._clock()
                decision = self._decide(now)
                if turn is not None and self._takes(turn, bool(decision.run)):
                    continue
                if decision.run or decision.drop:
                    self._leave(decision)
                    self._inlet.hand_over()
                    return decision if held is None else replace(decision, waited=now - held)
                self.tell()
                if self._closed and not self._rows:
                    self._inlet.hand_over()
                    return None
                if decision.wake is not None:
                    held = now if held is None else held
                    self._inlet.wait(self._sleepers, max(0.0, decision.wake - now))
                    continue
                held = None
                if until is not None and now >= until:
                    return decision
                self._inlet.wait(self._sleepers, None if until is None else until - now)

    def park(self, wake: Callable[[], None]) -> bool:
        """Call back, under the lock, with the next request or the end; False if that is now."""
        with self._lock:
            self._inlet.collect()
            if self._rows or self._closed:
                return False
            self._parked.append(wake)
            self._inlet.hand_over()
            return True

    def take_full(self, free_at: float = 0.0) -> Decision[W] | None:
        """Return a full batch of those in time behind a run that ends then; None without one."""
        with self._lock:
            self._inlet.collect()
            if self._rows < self._limits.max_rows:
                return None
            decision = self._decide(max(self._clock(), free_at))
            if not (decision.full and decision.run):
                return None
            self._leave(decision)
            return decision

    def poll(self) -> Decision[W]:
        """Return what there is to run or to drop now; `wake` says when to ask again."""
        with self._lock:
            now = self._clock()
            decision = self._decide(now)
            if decision.run or decision.drop:
                self._leave(decision)
            if decision.wake is not None and not decision.run:
                self._held = now if self._held is None else self._held
            elif self._held is not None:
                decision = replace(decision, waited=now - self._held)
                self._held = None
            return decision

    def finished(self, requests: Iterable[W]) -> None:
        """Let the next requests of sequences run: these were taken, and are answered."""
        with self._lock:
            self._at_work.difference_update([request.sequence for request in requests])
            if self._rows:
                self._wake()

    def close(self) -> None:
        """Refuse new requests; those that wait are still handed out."""
        with self._lock:
            self._inlet.collect()
            self._close()

    def drain(self) -> list[W]:
        """Close, and take out everything that waits."""
        with self._lock:
            self._inlet.collect()
            self._close()
            left = [*self._ordered(), *self._shares.drain()]
            for level in self._levels:
                level.clear()
            self._count(-self._rows)
            return left

    def _count(self, rows: int) -> None:
        """Count so many rows more, or less."""
        self._rows += rows
        self.tell()

    def _ordered(self) -> Iterable[W]:
        levels = [level.values() for level in self._levels]
        if not self._limits.delays:
            return in_order(levels, self._limits.head_start)
        return chain(in_order(levels[:-1], self._limits.head_start), levels[-1])

    def _delay(self, now: float) -> None:
        """Let requests wait behind all others that have waited for as long as they should."""
        last = len(self._levels) - 1
        for level in self._levels[:last]:
            for request in [request for request in level.values() if now >= request.delay_at]:
                self._levels[last][id(request)] = level.pop(id(request))
                request.level = last

    def _decide(self, now: float) -> Decision[W]:
        if not self._rows:
            # Asked between any two looks at the sockets, of every model.
            return Decision()
        if self._limits.delays:
            self._delay(now)
        waiting = self._ordered()
        if self._limits.sequences:
            waiting = next_steps(waiting, self._at_work)
        return next_batch(waiting, now, self._limits, self.costs)

    def _close(self) -> None:
        self._closed = True
        # No company will come any more.
        self._limits = replace(self._limits, max_delay=0.0)
        self._sleepers.wake_all()
        while self._parked:
            self._parked.pop()()
        self._inlet.closed(self)

    def _takes(self, turn: Turn, runs: bool) -> bool:
        """Have a turn if there is something to run, and else none; True if others came between."""
        if not runs:
            turn.let_go()
        if not runs or turn.ready:
            return False
        self.tell()
        # What is cancelled or expires meanwhile, still waits here, and will not run.
        self._inlet.hand_over()
        self._lock.release()
        try:
            turn.enter()
        finally:
            self._lock.acquire()
        return True

    def _wake(self) -> None:
        """Have one more instance look, if one has nothing to do; it wakes the next one."""
        if not self._sleepers.wake() and not self._inlet.rouse(self._sleepers) and self._parked:
            self._parked.pop()()

    def _leave(self, decision: Decision[W]) -> None:
        levels, rows = self._levels, 0
        for request in (*decision.run, *decision.drop):
            del levels[request.level][id(request)]
            rows += request.rows
            if request.stream is not None:
                self._come_forward(request)
        if self._limits.sequences:
            self._at_work.update(request.sequence for request in (*decision.run, *decision.drop))
        self._count(-rows)
        if self._rows:
            self._wake()

    def _remove(self, request: W) -> bool:
        if self._levels[request.level].pop(id(request), None) is not None:
            if request.stream is not None:
                self._come_forward(request)
        elif request.stream is None or not self._shares.withdraw(request):
            return False
        self._count(-request.rows)
        return True

    def _come_forward(self, left: W) -> None:
        """Let the next requests of a stream wait among everybody's."""
        for request in self._shares.leave(left, self._limits.max_rows):
            self._levels[request.level][id(request)] = request


class Queues(Protocol):
    """Makes the queues of the model versions that a process loads."""

    @property
    def memory(self) -> Sequence[Array]:
        """Where rows of requests lie that other processes wrote: bytes, in whole pages."""

    def open(self, dtypes: Sequence[np.dtype[Any]], limits: BatchBounds) -> BatchQueue[Any]:
        """Return the queue of a new version, whose inputs have these dtypes."""


class LocalQueues:
    """Makes queues whose requests come from this process."""

    memory: Sequence[Array] = ()

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def open(self, dtypes: Sequence[np.dtype[Any]], limits: BatchBounds) -> BatchQueue[Job]:
        """Return a queue."""
        del dtypes
        return BatchQueue(limits, self._clock)
