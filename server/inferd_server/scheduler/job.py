"""One admitted request, from its slot to its one answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from inferd.tensors import Array

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.scheduler.alarms import Alarm
from inferd_server.scheduler.slot import Slot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of the engine; times in seconds."""

    rows: int
    waited: float
    """The free engine, for the batch to fill."""
    gather: float
    """Making the batch contiguous."""
    compute: float
    """The engine."""
    behind: int = 0
    """Rows of the model that waited in the worker process when the batch had ended."""
    queued: float = 0.0
    """How long the request waited that led the batch."""


# Not frozen, which would cost twice as much for every request.
@dataclass(slots=True)
class Phases:
    """Where the time of an executed request went."""

    queue: float
    """Seconds from the slot being filled to the batch being taken."""
    run: Execution
    """The run, shared with the other requests of the batch."""


class Answering(Protocol):
    """What becomes of a request in the end. One of both is called, from any thread."""

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Take the request's rows of every output."""

    def fail(self, error: InferdError) -> None:
        """Take an error."""


class Job:
    """A request that waits, runs, and is answered exactly once, from any thread.

    Answering never raises: what goes wrong for one caller must not reach the next.
    """

    __slots__ = (
        "_answer", "_open", "alarm", "alone", "arrived", "cancelled", "deadline", "key", "level",
        "ordered", "rows", "slot", "stream", "trial",
    )  # fmt: skip

    def __init__(
        self,
        slot: Slot,
        key: Hashable,
        arrived: float,
        deadline: float | None,
        answer: Answering,
        level: int = 0,
        ordered: bool = False,
        trial: bool = False,
        alone: bool = False,
        stream: object | None = None,
    ) -> None:
        """Prepare.

        Args:
            slot: with the rows.
            key: equal for jobs whose rows fit into one batch.
            arrived: monotonic seconds.
            deadline: monotonic seconds, or None.
            answer: gets the one answer.
            level: priority; 0 is the highest.
            ordered: whether it belongs to a sequence, which has to learn that it will not run.
            trial: whether it is no caller's, and counts for nothing.
            alone: whether it shares no run, which its key says, too.
            stream: that it came on, whose other requests it may have to wait for; None: of none.
        """
        self.alarm: Alarm | None = None
        """Rings at a deadline that nobody else watches."""
        self.ordered = ordered
        self.trial = trial
        self.alone = alone
        self.stream = stream
        self.slot = slot
        self.rows = slot.rows
        self.key = key
        self.arrived = arrived
        self.deadline = deadline
        self.level = level
        self.cancelled = False
        self._answer = answer
        self._open = threading.Lock()

    @property
    def answered(self) -> bool:
        """True once an answer was sent, or is being sent."""
        return self._open.locked()

    def watch(self, alarm: Alarm) -> None:
        """Keep what rings at the deadline, which is for nothing once there is an answer."""
        self.alarm = alarm
        if self.answered:
            # Whoever answered may not have known of it.
            alarm.cancel()

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Answer with this job's rows of every output, and free the slot."""
        # A lock that is never released: the first to take it answers.
        if self._open.acquire(False):
            if self.alarm is not None:
                self.alarm.cancel()
            try:
                self._answer.finish(outputs, phases)
            except Exception:
                log.exception("an answer could not be sent")
                self._send(EngineFailure())
            finally:
                self.slot.free()
        else:
            # Answered early; only now is nobody at work on its rows.
            self.slot.free()

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
            self._answer.fail(error)
        except Exception:
            log.exception("an error could not be sent")
