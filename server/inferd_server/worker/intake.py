"""Where the worker's engines get their batches: all links, sorted by model.

Whoever is free looks; of several that have nothing to do, one waits for the fronts and the
others for what it finds.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from inferd_server.errors import InferdError, WorkerLost
from inferd_server.link.layout import Status
from inferd_server.link.receiving import WorkerLink
from inferd_server.scheduler.decision import Limits
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.table import Table, TableDecision
from inferd_server.worker.waiting import Waiting

BACKLOG_S = 0.05
"""Seconds between looks at answers that wait for room, should a front not tell."""


class TableQueue:
    """One model's requests, as its instances see them. Any thread may call any method."""

    def __init__(self, intake: Intake, number: int, waiting: Waiting) -> None:
        self.number = number
        self.waiting = waiting
        self.closed = False
        self.changed = threading.Condition(intake.lock)
        self.parked: list[Callable[[], None]] = []
        """Instances that have no thread while there is nothing to do."""
        self._intake = intake

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        with self._intake.lock:
            return self.waiting.rows

    @property
    def waiting_requests(self) -> int:
        """Requests that wait now for a run."""
        return self._intake.waiting_requests(self)

    def take(self, patience: float | None = None) -> TableDecision | None:
        """Block until there is something to run or to drop; None once closed and empty.

        An empty decision after `patience` seconds without a request.
        """
        return self._intake.take(self, patience)

    def park(self, wake: Callable[[], None]) -> bool:
        """Call back, under the lock, with the next request or the end; False if that is now."""
        return self._intake.park(self, wake)

    def take_full(self) -> TableDecision | None:
        """Return a batch that more requests would not make larger; None if there is none now."""
        return self._intake.take_full(self)

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Change the bounds of batches from now on."""
        with self._intake.lock:
            delay = 0.0 if self.closed else max_delay
            limits = self.waiting.limits
            self.waiting.limits = replace(limits, max_rows=max_rows, max_delay=delay)

    def close(self) -> None:
        """Refuse new requests; those that wait are still handed out."""
        self._intake.close(self)

    def drain(self) -> list[Left]:
        """Close, and take out everything that waits."""
        self._intake.close(self)
        with self._intake.lock:
            left, self.waiting.table = self.waiting.table, self.waiting.table[:0]
        return [Left(self.waiting, left)]

    def submit(self, request: Job) -> bool:
        """Refuse: requests come over links."""
        del request
        return False

    def withdraw(self, request: Job) -> bool:
        """Do nothing: no request was submitted here."""
        del request
        return False


class Left:
    """Requests that were taken out of a queue that ended."""

    def __init__(self, waiting: Waiting, table: Table) -> None:
        self._waiting = waiting
        self._table = table

    def fail(self, error: InferdError) -> None:
        """Answer them."""
        lost = isinstance(error, WorkerLost)
        self._waiting.refuse(self._table, Status.LOST if lost else Status.CLOSED)


class Intake:
    """All requests of all fronts. Any thread may call any method."""

    def __init__(self, links: Sequence[WorkerLink], wake: int, clock: Callable[[], float]) -> None:
        """Begin without models.

        Args:
            links: detached.
            wake: eventfd that every front writes to; not blocking.
            clock: monotonic seconds.
        """
        self.lock = threading.Lock()
        self._links = {link.index: link for link in links}
        self._wake = wake
        self._clock = clock
        self._numbers = count(1)
        self._queues: dict[int, TableQueue] = {}
        self._idle: list[TableQueue] = []
        self._listening = False
        nobody = Waiting(self._links, (), Limits(1))
        self._parked = 0
        # Listens while there is a model without a thread, or none, so that late requests get
        # their answer.
        self._porter = TableQueue(self, 0, nobody)

    def start(self) -> None:
        """Listen even while no model has a thread."""
        threading.Thread(target=self._porter.take, name="intake", daemon=True).start()

    def open(self, dtypes: Sequence[np.dtype[Any]], limits: Limits) -> TableQueue:
        """Return the queue of a new model; its number marks the model's requests."""
        with self.lock:
            number = next(self._numbers)
            queue = TableQueue(self, number, Waiting(self._links, dtypes, limits))
            self._queues[number] = queue
            return queue

    def close(self, queue: TableQueue) -> None:
        """Let a queue take no more, and wake whoever waits for it."""
        with self.lock:
            self._collect()
            queue.closed = True
            # No company will come any more.
            queue.waiting.limits = replace(queue.waiting.limits, max_delay=0.0)
            self._queues.pop(queue.number, None)
            queue.changed.notify_all()
            while queue.parked:
                self._unpark(queue)
            if not self._queues:
                self._porter.changed.notify_all()
        os.eventfd_write(self._wake, 1)

    def waiting_requests(self, queue: TableQueue) -> int:
        """Return how many requests wait for one model, those among them that nobody took yet."""
        with self.lock:
            self._collect()
            return len(queue.waiting.table)

    def attach(self, link: int) -> None:
        """Serve a front."""
        with self.lock:
            self._links[link].attach()
        os.eventfd_write(self._wake, 1)

    def detach(self, link: int) -> None:
        """Forget a front that is gone; its memory is not touched any more."""
        with self.lock:
            for queue in self._queues.values():
                queue.waiting.forget(link)
            self._links[link].detach()

    def take(self, queue: TableQueue, patience: float | None = None) -> TableDecision | None:
        """Wait for a batch of one model; None once it is closed and empty."""
        held: float | None = None
        idle_until = None if patience is None else self._clock() + patience
        with self.lock:
            while True:
                self._collect()
                now = self._clock()
                decision = queue.waiting.decide(now)
                if len(decision.run) or len(decision.drop):
                    self._hand_over()
                    return decision if held is None else replace(decision, waited=now - held)
                if queue.closed and not len(decision.keep):
                    self._hand_over()
                    return None
                if decision.wake is None:
                    held = None
                    if idle_until is not None and now >= idle_until:
                        return decision
                    self._wait(queue, None if idle_until is None else idle_until - now)
                else:
                    held = now if held is None else held
                    self._wait(queue, max(0.0, decision.wake - now))

    def park(self, queue: TableQueue, wake: Callable[[], None]) -> bool:
        """Call back with the next request of one model or its end; False if that is now."""
        with self.lock:
            self._collect()
            if queue.waiting.rows or queue.closed:
                return False
            queue.parked.append(wake)
            self._parked += 1
            self._hand_over()
            return True

    def _unpark(self, queue: TableQueue) -> None:
        self._parked -= 1
        queue.parked.pop()()

    @property
    def _posted(self) -> bool:
        """True while the porter has to listen: an instance may be asleep, or there is none."""
        return not self._queues or self._parked > 0

    def take_full(self, queue: TableQueue) -> TableDecision | None:
        """Return a full batch of one model, if there is one now."""
        with self.lock:
            self._collect()
            return queue.waiting.decide_full(self._clock())

    def _wait(self, queue: TableQueue, seconds: float | None) -> None:
        """Wait for news, under the lock before and after."""
        if self._listening or (queue is self._porter and not self._posted):
            # The porter leaves its post for an instance that may be asleep.
            self._hand_over()
            self._idle.append(queue)
            queue.changed.wait(seconds)
            self._idle.remove(queue)
            return
        if any(link.backlog for link in self._links.values()):
            seconds = BACKLOG_S if seconds is None else min(seconds, BACKLOG_S)
        self._listening = True
        self.lock.release()
        try:
            if select.select([self._wake], [], [], seconds)[0]:
                self._drain()
        finally:
            self.lock.acquire()
            self._listening = False

    def _drain(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            # Another one was quicker.
            return

    def _hand_over(self) -> None:
        """Let somebody idle listen, now that the caller is busy."""
        if self._listening:
            return
        waiting = [queue for queue in self._idle if queue is not self._porter]
        if waiting:
            waiting[0].changed.notify()
        elif self._posted and self._idle:
            self._porter.changed.notify()

    def _collect(self) -> None:
        """Move what the fronts wrote into the queues."""
        for link in self._links.values():
            if link.backlog:
                link.flush()
            found = link.take()
            if len(found):
                self._sort(found)

    def _sort(self, found: Table) -> None:
        models = found["model"]
        for number in [models[0]] if (models == models[0]).all() else np.unique(models):
            requests = found[models == number]
            queue = self._queues.get(int(number))
            if queue is None:
                self._porter.waiting.refuse(requests, Status.RETIRED)
            else:
                queue.waiting.add(requests)
                queue.changed.notify()
                if queue.parked and queue not in self._idle:
                    self._unpark(queue)
