"""One request, from its rows to its one answer."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

from inferd.tensors import Array

from inferd_server.batching.batch_size import NEVER
from inferd_server.batching.slots import Slot, batch_views
from inferd_server.batching.timers import Timer
from inferd_server.errors import EngineFailure, InferdError
from inferd_server.monitoring.phases import Execution, Phases

log = logging.getLogger(__name__)


class LocalSender:
    """The sender of jobs: this process, in which each has an answer of its own."""

    def views(self, jobs: Sequence[Job]) -> tuple[Array, ...]:
        """Return every input of several jobs as one contiguous array."""
        return batch_views([job.slot for job in jobs])

    begin = views

    def finish(
        self, jobs: Sequence[Job], outputs: Mapping[str, Array], taken: float, run: Execution
    ) -> None:
        """Answer each job with its rows of every output, in order; one alone with all of them."""
        slots = [job.slot for job in jobs]
        arena = slots[0].arena
        arena.count_out(slots)
        if len(jobs) == 1:
            (job,) = jobs
            job.answer(outputs, Phases(taken - job.arrived, run))
        else:
            tensors = tuple(outputs.items())
            start = 0
            for job in jobs:
                end = start + job.rows
                own = {}
                for name, array in tensors:
                    own[name] = array[start:end]
                start = end
                job.answer(own, Phases(taken - job.arrived, run))
        # The last, because outputs may lie where the inputs did.
        arena.release(slots)

    def fail(self, jobs: Sequence[Job], error: InferdError) -> None:
        """Answer each job with an error."""
        for job in jobs:
            job.fail(error)


class Job(ABC):
    """A request that waits, runs, and is answered exactly once, from any thread.

    Answering never raises: what goes wrong for one caller must not reach the next.
    """

    __slots__ = (
        "_open", "alarm", "arrived", "cancelled", "deadline", "key", "level", "rows",
        "sequence", "slot", "stream", "trial",
    )  # fmt: skip

    sender = LocalSender()
    """Of every job: whoever runs them asks it for their rows, and gives it the outputs."""

    def __init__(self) -> None:
        """Have no rows yet: see `place`."""
        self.alarm: Timer | None = None
        """Rings at a deadline that nobody else watches."""
        self.cancelled = False
        self._open = threading.Lock()

    def place(
        self,
        slot: Slot,
        key: Hashable,
        arrived: float,
        deadline: float | None,
        level: int = 0,
        sequence: int = 0,
        trial: bool = False,
        stream: object | None = None,
    ) -> None:
        """Take rows, and what decides when they run.

        Args:
            slot: with the rows.
            key: equal for jobs whose rows fit into one batch; `Alone` if it shares no run.
            arrived: monotonic seconds.
            deadline: monotonic seconds, or None.
            level: priority; 0 is the highest.
            sequence: that it is a step of, and that ends unless its caller gets its outputs; 0: of
                none.
            trial: whether it is no caller's, and counts for nothing.
            stream: that it came on, whose other requests it may have to wait for; None: of none.
        """
        self.slot = slot
        self.rows = slot.rows
        self.key = key
        self.arrived = arrived
        self.deadline = deadline
        self.level = level
        self.sequence = sequence
        self.trial = trial
        self.stream = stream

    @abstractmethod
    def _succeed(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Answer with the request's rows of every output."""

    @abstractmethod
    def _refuse(self, error: InferdError) -> None:
        """Answer with an error."""

    def _overdue(self, phases: Phases) -> None:  # noqa: B027
        """Note the run of a request that was answered before it ended; most have no use for it."""

    def lost(self, at: float, reason: str, ran: bool) -> None:  # noqa: B027
        """Note that the worker process died that had it; most have no use for it.

        Args:
            at: when, in monotonic seconds.
            reason: what happened to the worker.
            ran: whether it ran then.
        """

    @property
    def delay_at(self) -> float:
        """Monotonic seconds, from when on it waits behind all others; infinite: never."""
        return NEVER

    @property
    def answered(self) -> bool:
        """True once an answer was sent, or is being sent."""
        return self._open.locked()

    def watch(self, alarm: Timer) -> None:
        """Keep what rings at the deadline, which is for nothing once there is an answer."""
        self.alarm = alarm
        if self.answered:
            # Whoever answered may not have known of it.
            alarm.cancel()

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Answer with this job's rows of every output, and free the slot."""
        try:
            self.answer(outputs, phases)
        finally:
            self.slot.free()

    def answer(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Answer with this job's rows of every output; whoever calls frees the slot."""
        # A lock that is never released: the first to take it answers.
        if not self._open.acquire(False):
            self._overdue(phases)
            return
        if self.alarm is not None:
            self.alarm.cancel()
        try:
            self._succeed(outputs, phases)
        except Exception:
            log.exception("an answer could not be sent")
            self._send(EngineFailure())

    def fail(self, error: InferdError) -> None:
        """Answer with an error, and free the slot."""
        try:
            self.fail_early(error)
        finally:
            self.slot.free()

    def fail_early(self, error: InferdError) -> None:
        """Answer with an error while others may still be at work on the slot.

        They have to call `finish` or `fail` later all the same.
        """
        if self._open.acquire(False):
            if self.alarm is not None:
                self.alarm.cancel()
            self._send(error)

    def _send(self, error: InferdError) -> None:
        try:
            self._refuse(error)
        except Exception:
            log.exception("an error could not be sent")
