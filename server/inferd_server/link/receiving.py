"""The worker's side of a link: takes requests, and answers them whole batches at a time."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from inferd.tensors import Array

from inferd_server.errors import Cancelled
from inferd_server.link.answers import AnswerRing, Part
from inferd_server.link.layout import (
    ALONE,
    CANCELLED,
    COMPLETION,
    SUBMISSION,
    TRIAL,
    Counter,
    Status,
)
from inferd_server.link.memory import LinkMemory
from inferd_server.link.rows import read_rows
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.table import Table

log = logging.getLogger(__name__)
WAITING = np.dtype(
    [*SUBMISSION.descr, ("due", "f8"), ("link", "u4"), ("epoch", "u4"), ("key", "u4")]
)
"""A request as it waits in the worker."""
LANES = 256
"""Lanes whose arrays are kept."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Completions of one link, and the outputs that they are parts of, if any."""

    records: np.ndarray[Any, np.dtype[np.void]]
    outputs: tuple[Array, ...] | None
    rows: Array
    """Of each request."""


class WorkerLink:
    """One link. `take` is called under the intake's lock; any thread may answer."""

    def __init__(self, index: int, memory: LinkMemory, wake: int) -> None:
        """Begin detached.

        Args:
            index: of the link.
            memory: mapped.
            wake: eventfd that the front waits on.
        """
        self.index = index
        self.attached = False
        self.epoch = 0
        self._memory = memory
        self._wake = wake
        self._taken = 0
        self._completed = 0
        self._ring = AnswerRing(memory.layout.answer_room)
        self._backlog: deque[Answers] = deque()
        self._lanes: dict[tuple[int, int], tuple[Array, ...]] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> Array:
        """The memory that rows of requests are in: bytes, in whole pages."""
        return self._memory.inputs

    @property
    def backlog(self) -> bool:
        """True while answers wait for room."""
        return bool(self._backlog)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of answers so far, and those that the front has not taken."""
        with self._lock:
            self._ring.release(self._memory.read(Counter.CONSUMED))
            return self._ring.taken, self._ring.held

    def trim(self) -> None:
        """Return the memory for answers to the system, if none is there now."""
        with self._lock:
            self._ring.release(self._memory.read(Counter.CONSUMED))
            if self.attached and not self._ring.held:
                self._memory.forget_answers()

    def attach(self) -> None:
        """Begin with a front that begins, too."""
        with self._lock:
            self.epoch += 1
            self._taken = self._completed = 0
            self._ring = AnswerRing(self._memory.layout.answer_room)
            self._backlog.clear()
            self._lanes.clear()
            self.attached = True

    def detach(self) -> None:
        """Touch the memory no more: the front is gone, and what it asked is answered nobody."""
        with self._lock:
            self.epoch += 1
            self.attached = False
            self._backlog.clear()

    def take(self) -> Table:
        """Return the requests that arrived since the last time."""
        if not self.attached:
            return np.empty(0, WAITING)
        submitted = self._memory.read(Counter.SUBMITTED)
        places = np.arange(self._taken, submitted) % self._memory.layout.requests
        found = np.empty(len(places), WAITING)
        if len(places):
            arrived = self._memory.submissions[places]
            for name in SUBMISSION.names or ():
                found[name] = arrived[name]
            found["link"], found["epoch"] = self.index, self.epoch
            self._taken = submitted
        return found

    def cancelled(self, tickets: Array) -> Array:
        """Tell of each ticket whether its caller went away."""
        return self._marked(tickets, CANCELLED)

    @property
    def suspects(self) -> bool:
        """True once there was a request that shares its run with no other."""
        return self._memory.read(Counter.SUSPECTS) > 0

    def alone(self, tickets: Array) -> Array:
        """Tell of each ticket whether it shares its run with no other."""
        return self._marked(tickets, ALONE)

    def trials(self, tickets: Array) -> Array:
        """Tell of each ticket whether it is of a trial, which is no caller's."""
        return self._marked(tickets, TRIAL)

    def begin(self, requests: Table) -> None:
        """Note that requests of this link run from now on, who may end this process."""
        tickets = requests["ticket"]
        places = tickets % self._memory.layout.requests
        with self._lock:
            if self.attached and requests["epoch"].item(0) == self.epoch:
                self._memory.begun[places] = tickets

    def rows(self, request: np.void, dtypes: Sequence[np.dtype[Any]]) -> tuple[Array, ...]:
        """Return the arrays that a request's inputs are rows of.

        Raises:
            Cancelled: the front that sent it is gone, and the memory may be the next one's.
        """
        # By epoch, too: the next front may begin right now, with lanes of the same numbers.
        lane = int(request["epoch"]), int(request["lane"])
        if lane[0] != self.epoch:
            raise Cancelled("the front that sent this request is gone")
        found = self._lanes.get(lane)
        if found is None:
            found = read_rows(self._memory.inputs, int(request["block"]), dtypes)
            if len(self._lanes) >= LANES:
                del self._lanes[next(iter(self._lanes))]
            self._lanes[lane] = found
        return found

    def refuse(self, requests: Table, status: Status, text: str = "") -> None:
        """Answer requests of this link without outputs, or with a sentence in their place."""
        said = (np.array([text.encode()], dtype=np.object_),) if text else None
        self._answer(requests, Answers(records_of(requests, status), said, requests["rows"]))

    def answer(
        self, requests: Table, outputs: tuple[Array, ...], taken: float, run: Execution
    ) -> None:
        """Answer requests of this link that ran, with their rows of the outputs, in order."""
        records = records_of(requests, Status.OK)
        records["queue"] = taken - requests["arrived"]
        records["waited"], records["gather"], records["compute"] = (
            run.waited,
            run.gather,
            run.compute,
        )
        records["batch_rows"], records["behind"] = run.rows, run.behind
        self._answer(requests, Answers(records, outputs, requests["rows"]))

    def flush(self) -> None:
        """Write answers that waited for room."""
        with self._lock:
            self._flush()

    def _marked(self, tickets: Array, mark: int) -> Array:
        found: Array = self._memory.marked[tickets % self._memory.layout.requests] & mark != 0
        return found

    def _answer(self, requests: Table, answers: Answers) -> None:
        with self._lock:
            if self.attached and int(requests["epoch"][0]) == self.epoch:
                self._backlog.append(answers)
                self._flush()

    def _flush(self) -> None:
        while self._backlog and self._write_safely(self._backlog[0]):
            self._backlog.popleft()

    def _write_safely(self, answers: Answers) -> bool:
        try:
            return self._write(answers)
        except Exception:
            # Outputs that cannot be encoded, or no memory to do so.
            log.exception("answers could not be written")
            answers.records["status"] = Status.FAILED
            self._complete(answers.records)
            return True

    def _write(self, answers: Answers) -> bool:
        """Write answers; False while there is no room."""
        if answers.outputs is None:
            self._complete(answers.records)
            return True
        part = Part(answers.outputs)
        if part.tensor_bytes > self._memory.layout.answer_bytes or part.size > self._ring.size:
            self._split(answers)
            return True
        place = self._place(part.size, len(answers.records))
        if place is None:
            return False
        part.write(self._memory.answers[place % self._ring.size :])
        answers.records["part"] = place
        answers.records["row"] = np.cumsum(answers.rows) - answers.rows
        self._complete(answers.records)
        return True

    def _place(self, size: int, count: int) -> int | None:
        self._ring.release(self._memory.read(Counter.CONSUMED))
        place = self._ring.place(size, self._completed + count)
        if place is None:
            # Looked at once more after saying so, lest both sides wait for each other.
            self._memory.want_room(True)
            self._ring.release(self._memory.read(Counter.CONSUMED))
            place = self._ring.place(size, self._completed + count)
        if place is not None:
            self._memory.want_room(False)
        return place

    def _split(self, answers: Answers) -> None:
        """Put what is too large for one part into two, or refuse what cannot be split."""
        count = len(answers.records)
        if count == 1 or answers.outputs is None:
            answers.records["status"] = Status.TOO_LARGE
            self._backlog.insert(1, Answers(answers.records, None, answers.rows))
            return
        half = count // 2
        row = int(answers.rows[:half].sum())
        first, second = (
            Answers(
                answers.records[part], tuple(o[span] for o in answers.outputs), answers.rows[part]
            )
            for part, span in (
                (slice(0, half), slice(0, row)),
                (slice(half, count), slice(row, None)),
            )
        )
        self._backlog.insert(1, second)
        self._backlog.insert(1, first)

    def _complete(self, records: np.ndarray[Any, np.dtype[np.void]]) -> None:
        places = (self._completed + np.arange(len(records))) % self._memory.layout.requests
        self._memory.completions[places] = records
        self._completed += len(records)
        self._memory.advance(Counter.COMPLETED, len(records))
        os.eventfd_write(self._wake, 1)


def records_of(requests: Table, status: Status) -> np.ndarray[Any, np.dtype[np.void]]:
    """Return completions without times."""
    records = np.zeros(len(requests), COMPLETION)
    records["ticket"] = requests["ticket"]
    records["status"] = status
    return records
