"""The requests of all fronts, on their way from the links to the queues of their models.

An instance that is free looks itself; of several that have nothing to do, one waits for the fronts
and the others for what it finds.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from operator import attrgetter
from typing import Any

import numpy as np
from inferd.tensors import Array

from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.queue import BatchQueue, Sleepers
from inferd_server.errors import HandleRetired
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.worker_end import WorkerLink

BACKLOG_S = 0.05
"""Seconds between looks at answers that wait for room, should a front not tell."""
ARRIVED = attrgetter("arrived")


class Inbox:
    """The inlet of all queues of a worker process, and what makes them. Any thread may call.

    Those methods that a queue calls, or a thread of this class, are called under the lock.
    """

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
        self._queues: dict[int, BatchQueue[LinkRequest]] = {}
        self._dtypes: dict[int, Sequence[np.dtype[Any]]] = {}
        # Queues whose instances sleep until the one that listens has something for them.
        self._asleep: list[Sleepers] = []
        self._listening = False
        # Of the queue whose instance listens, unless it was woken.
        self._listener: Sleepers | None = None
        # Of a thread that listens where no instance would, so that late requests get their answer.
        self._spare = threading.Condition(self.lock)
        self._spare_asleep = False

    @property
    def memory(self) -> Sequence[Array]:
        """Where rows of requests lie: bytes, in whole pages."""
        return [link.inputs for link in self._links.values()]

    def start(self) -> None:
        """Listen even while no model has a thread."""
        threading.Thread(target=self._listen_in_need, name="inbox", daemon=True).start()

    def open(self, dtypes: Sequence[np.dtype[Any]], limits: BatchBounds) -> BatchQueue[LinkRequest]:
        """Return the queue of a new model; its number marks the model's requests."""
        with self.lock:
            number = next(self._numbers)
            queue: BatchQueue[LinkRequest] = BatchQueue(limits, self._clock, self, number)
            self._queues[number] = queue
            self._dtypes[number] = tuple(dtypes)
            return queue

    def attach(self, link: int) -> None:
        """Serve a front."""
        with self.lock:
            self._links[link].attach()
            for number, queue in self._queues.items():
                self._links[link].tell_waiting(number, queue.rows)
        self._wake_listener()

    def detach(self, link: int) -> None:
        """Forget a front that is gone; its memory is not touched any more."""
        gone = self._links[link]
        with self.lock:
            # Of what it asked last, too, the sequences end.
            self.collect()
            for queue in self._queues.values():
                queue.discard(lambda request: request.sender is gone)
            gone.detach()

    def closed(self, queue: BatchQueue[Any]) -> None:
        """Let a queue get nothing more, and wake whoever waits for it."""
        self._queues.pop(queue.number, None)
        self._dtypes.pop(queue.number, None)
        if not self._queues:
            self._spare.notify()
        self._wake_listener()

    def changed(self, queue: BatchQueue[Any]) -> None:
        """Tell all fronts how many rows wait in a queue."""
        for link in self._links.values():
            link.tell_waiting(queue.number, queue.rows)

    def collect(self, taker: BatchQueue[Any] | None = None) -> None:
        """Move what the fronts wrote into the queues."""
        found: list[LinkRequest] = []
        senders = 0
        for link in self._links.values():
            if link.backlog:
                link.flush()
            taken = link.take(self._dtypes)
            if taken:
                senders += 1
                found = found + taken if found else taken
        if senders > 1:
            # Those of one front are in order already.
            found.sort(key=ARRIVED)
        if found:
            self._sort(found, taker)

    def wait(self, sleepers: Sleepers, seconds: float | None) -> None:
        """Wait for news of one queue: for the fronts, unless another one does."""
        if not self._listening:
            self._listener = sleepers
            self._listen(seconds)
            return
        self._asleep.append(sleepers)
        sleepers.wait(seconds)
        self._asleep.remove(sleepers)

    def rouse(self, sleepers: Sleepers) -> bool:
        """Wake the instance that listens, if it is of this queue; False if it is not."""
        if self._listener is not sleepers:
            return False
        self._listener = None
        self._wake_listener()
        return True

    def hand_over(self) -> None:
        """Let somebody idle listen, now that the caller is busy."""
        if self._listening:
            return
        if self._asleep:
            self._asleep[0].wake()
        elif self._spare_asleep and self._in_need:
            self._spare.notify()

    @property
    def _in_need(self) -> bool:
        """True while there is an instance without a thread, or none at all."""
        return not self._queues or any(queue.parked for queue in self._queues.values())

    def _listen_in_need(self) -> None:
        with self.lock:
            while True:
                self.collect()
                if self._in_need and not self._listening:
                    self._listen(None)
                    continue
                # An instance may be asleep because this thread listened.
                self.hand_over()
                self._spare_asleep = True
                self._spare.wait()
                self._spare_asleep = False

    def _listen(self, seconds: float | None) -> None:
        """Wait until a front has written something, without the lock meanwhile."""
        if any(link.backlog for link in self._links.values()):
            seconds = BACKLOG_S if seconds is None else min(seconds, BACKLOG_S)
        links = list(self._links.values())
        if not all(link.sleep() for link in links):
            seconds = 0.0
        self._listening = True
        self.lock.release()
        try:
            if select.select([self._wake], [], [], seconds)[0]:
                self._drain()
        finally:
            self.lock.acquire()
            self._listening, self._listener = False, None
            for link in links:
                link.wake()

    def _drain(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            # Another one was quicker.
            return

    def _wake_listener(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _sort(self, found: Sequence[LinkRequest], taker: BatchQueue[Any] | None) -> None:
        """Add requests to the queues of their models; they come too late for one that is gone."""
        for number, requests in by_model(found).items():
            queue = self._queues.get(number)
            if queue is not None:
                queue.extend(requests)
                if queue is not taker:
                    queue.tell()
                continue
            for request in requests:
                request.fail(HandleRetired("the model was replaced before the request ran"))


def by_model(requests: Sequence[LinkRequest]) -> Mapping[int, Sequence[LinkRequest]]:
    """Return requests by the number of their model, those of each in the order given."""
    first = requests[0].model
    for request in requests:
        if request.model != first:
            break
    else:
        return {first: requests}
    found: dict[int, list[LinkRequest]] = {}
    for request in requests:
        found.setdefault(request.model, []).append(request)
    return found
