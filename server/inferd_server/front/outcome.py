"""What happens when a job ends: the response, and the counters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inferd.tensors import Array

from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    InvalidInput,
)
from inferd_server.front.plan import Plan
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.line import Line
from inferd_server.scheduler.job import Job, Phases
from inferd_server.scheduler.promise import Promise
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where requests are counted, and the clocks."""

    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Seconds since the epoch."""
    failures: BoundedLog
    """Of requests whose run failed."""


class Answer:
    """What happens when a job ends: the response, and the counters."""

    __slots__ = (
        "_again", "_attempt", "_call", "_filled", "_identity", "_plan", "_promise", "_started",
        "_telemetry",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        identity: bytes,
        plan: Plan,
        started: float,
        filled: float,
        telemetry: Telemetry,
        again: Callable[[Call, float, int], None] | None = None,
        attempt: int = 1,
        promise: Promise | None = None,
    ) -> None:
        """Prepare.

        Args:
            call: to be answered.
            identity: the request's id, as a field of the response.
            plan: what is known of the request.
            started: when it arrived, in monotonic seconds.
            filled: when its rows were in their slot.
            telemetry: where it is counted.
            again: admits the call anew, given when it arrived and the attempts so far; None if
                that was tried often enough.
            attempt: which one this is.
            promise: what the request was told at the door, if that was close.
        """
        self._again = again
        self._attempt = attempt
        self._call = call
        self._identity = identity
        self._plan = plan
        self._promise = promise
        self._started = started
        self._filled = filled
        self._telemetry = telemetry

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Send the outputs; a response that cannot be made is an error of this job alone."""
        plan = self._plan
        try:
            parts = plan.responses.encode(self._identity, outputs)
        except InferdError as error:
            self.fail(error)
            return
        except Exception:
            log.exception("a response could not be encoded")
            self.fail(EngineFailure())
            return
        now = self._telemetry.clock()
        total = now - self._started
        # Counted first: who has the answer finds it in the statistics.
        plan.handle.statistics.succeeded(
            plan.rows, total, self._filled - self._started, phases, self._telemetry.wall()
        )
        plan.series.succeeded(total, phases.queue)
        forecast = plan.handle.forecast
        if forecast.last is not phases.run:
            forecast.learn(phases.run, now)
        if self._promise is not None:
            self._settle(self._promise, total, now)
        try:
            self._call.reply(parts)
        except Exception:
            # No memory for the joined message, most likely; the call must not stay open.
            log.exception("a response could not be sent")
            self._call.fail(EngineFailure())

    def _settle(self, promise: Promise, total: float, now: float) -> None:
        """Tell whether a request was answered in time that was near its deadline."""
        if self._call.cancelled:
            # The caller's own clock ran out first.
            promise.ended(total, now)
        else:
            promise.answered(total)

    def fail(self, error: InferdError) -> None:
        """Send an error; a request whose model was replaced before it ran is admitted anew."""
        if self._again is not None and isinstance(error, HandleRetired):
            self._plan.series.withdrawn()
            self._again(self._call, self._started, self._attempt)
            return
        now = self._telemetry.clock()
        total = now - self._started
        if self._promise is not None and isinstance(error, Cancelled | DeadlinePassed):
            self._promise.ended(total, now)
        self._plan.handle.statistics.failed(total)
        if isinstance(error, EngineFailure | InvalidInput):
            self._tell(error)
        self._plan.series.answered(code_name(error), total)
        self._call.fail(error)

    def _tell(self, error: InferdError) -> None:
        """Write to the log whose request it was that failed."""
        handle = self._plan.handle
        about = {"model": handle.name, "version": handle.version, "request": ident(self._identity)}
        level = logging.ERROR if isinstance(error, EngineFailure) else logging.INFO
        kind = handle.name, handle.version, level
        self._telemetry.failures(kind, level, "a request failed", {**about, "error": str(error)})


def ident(field: bytes) -> str:
    """Return the id in the field of a message that holds it; "" where there is none."""
    # A tag and a length that is a varint come before it.
    begin = next((at + 1 for at, byte in enumerate(field[1:], 1) if byte < 128), len(field))
    return field[begin:].decode(errors="replace")


def cancel(queue: Line, job: Job) -> None:
    """End a job whose caller went away, unless it runs already."""
    job.cancelled = True
    if queue.withdraw(job):
        job.fail(Cancelled("the caller went away while the request waited"))


def expire(queue: Line, job: Job) -> None:
    """End a job whose time is over, whether it waits or runs."""
    error = DeadlinePassed("the deadline passed before the request was answered")
    if queue.withdraw(job):
        job.fail(error)
    else:
        # Its rows are in use until the engine is done with them.
        job.fail_early(error)
