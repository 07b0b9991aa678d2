"""A request for an inference, from its arrival to its one answer: response and counters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from inferd.tensors import Array

from inferd_server.batching.batch_size import NEVER
from inferd_server.batching.job import Job
from inferd_server.batching.queue import RequestQueue
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    InvalidInput,
    SequenceNotFound,
)
from inferd_server.inference.formatting import Formatting
from inferd_server.inference.request_plan import Plan
from inferd_server.inference.tracing import Tracing
from inferd_server.inference.trailers import Trailers
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.phases import Phases
from inferd_server.monitoring.series import AT_REPLY, IN_QUEUE
from inferd_server.monitoring.tracing.context import trace_of
from inferd_server.monitoring.tracing.spans import LostAttempt, RanRequest
from inferd_server.sequences.store import ANEW
from inferd_server.transport.call import Call, Metadata
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)

NOTHING_TOLD: Metadata = ()
SWAPS = 3
"""Attempts: a model that was replaced after a request looked it up is looked up again."""


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


@dataclass(frozen=True, slots=True)
class Answering:
    """What all requests share for their answers."""

    telemetry: Telemetry
    again: Callable[[InferRequest], None]
    """Admits a request anew whose model was replaced before it ran."""
    formatting: Formatting
    """Writes answers that take long."""
    trailers: Trailers
    """What answers tell besides."""
    tracing: Tracing | None = None
    """Notes what becomes of requests that are traced; None: none is."""


class InferRequest(Job):
    """A request for an inference: who asked what, and what becomes of it."""

    __slots__ = (
        "_answering", "attempt", "call", "identity", "plan", "started",
    )  # fmt: skip

    identity: bytes
    """The id as a field of the response."""
    plan: Plan
    """What the checks found out."""

    def __init__(self, call: Call, started: float, answering: Answering, attempt: int = 1) -> None:
        """Begin; `identity` and `plan` are set by the checks, and `place` follows.

        Args:
            call: to be answered.
            started: when it arrived, in monotonic seconds.
            answering: what it is answered with.
            attempt: which one this is; a model may be replaced before the request runs.
        """
        Job.__init__(self)
        self.call = call
        self.started = started
        self.attempt = attempt
        self._answering = answering

    @property
    def delay_at(self) -> float:
        """Monotonic seconds, from when on it waits behind all others; infinite: never."""
        delay = self.plan.urgency.delay
        return NEVER if delay is None else self.started + delay

    def _succeed(self, outputs: Mapping[str, Array], phases: Phases, here: bool = False) -> None:
        """Send the outputs; a response that cannot be made is an error of this request alone."""
        plan = self.plan
        try:
            if plan.responses.classifies and not here and self._send_later(outputs, phases):
                return
            parts = plan.responses.encode(self, outputs)
        except InferdError as error:
            self._refuse(error)
            return
        except Exception:
            log.exception("a response could not be encoded")
            self._refuse(EngineFailure())
            return
        if (sampler := plan.sampler) is not None:
            if sampler.left > 1 and not self.sequence:
                sampler.left -= 1
            else:
                sampler.look(self, outputs)
        call, total = self.call, self._count(plan, phases)
        metadata, trailing = call.metadata, NOTHING_TOLD
        if len(metadata) != 1 or metadata[0][0] != self._answering.trailers.usual:
            trailing = self._tell_more(metadata, total, phases)
        try:
            call.reply(parts, trailing)
        except Exception:
            # No memory for the joined message, most likely; the call must not stay open.
            log.exception("a response could not be sent")
            call.fail(EngineFailure())

    def _tell_more(self, asked: Metadata, total: float, phases: Phases) -> Metadata:
        """Note the trace of a request, and return the trailing metadata of its answer."""
        answering, plan = self._answering, self.plan
        noted = None if answering.tracing is None else answering.tracing.of(asked)
        if noted is not None:
            version = str(plan.handle.version)
            noted.ran = RanRequest(version, plan.rows, self.arrived, phases)
        if trace := trace_of(asked) if noted is None else noted.context.trace.hex():
            plan.series.traced(trace, total)
        return answering.trailers.of(asked, total, self.arrived - self.started, phases)

    def lost(self, at: float, reason: str, ran: bool) -> None:
        """Note in its trace that the worker died that had it."""
        tracing = self._answering.tracing
        noted = None if tracing is None else tracing.of(self.call.metadata)
        if noted is not None:
            since = noted.lost[-1].at if noted.lost else self.arrived
            noted.lost.append(LostAttempt(since, at, reason, ran))

    def _send_later(self, outputs: Mapping[str, Array], phases: Phases) -> bool:
        """Leave an answer that takes long to another thread; False if it does not."""
        send = partial(self._succeed, phases=phases, here=True)
        return self._answering.formatting.submit(self.plan.responses.targets, outputs, send)

    def _count(self, plan: Plan, phases: Phases) -> float:
        """Count an answer before it is sent: who has it finds it in the statistics.

        Returns:
            Seconds from the request's arrival.
        """
        telemetry, handle = self._answering.telemetry, plan.handle
        now = telemetry.clock()
        total = now - self.started
        handle.statistics.succeeded(
            plan.rows, total, self.arrived - self.started, phases, telemetry.wall()
        )
        if self.deadline is not None and now > self.deadline:
            plan.series.late(AT_REPLY)
        if handle.forecast.last is not phases.run:
            handle.forecast.learn(plan.specs, phases.run, now)
        return total

    def _overdue(self, phases: Phases) -> None:
        """Learn from a run whose answer came too late to be sent."""
        plan, now = self.plan, self._answering.telemetry.clock()
        plan.handle.forecast.learn(plan.specs, phases.run, now)

    def _refuse(self, error: InferdError) -> None:
        """Send an error; a request whose model was replaced before it ran is admitted anew.

        Not one of a sequence: a later one may have come to the new model before it.
        """
        answering, plan = self._answering, self.plan
        if isinstance(error, HandleRetired):
            if self.sequence:
                error = SequenceNotFound(f"{error}, and its sequence ended; {ANEW}")
            elif self.attempt < SWAPS:
                plan.series.withdrawn()
                answering.again(self)
                return
        now = answering.telemetry.clock()
        over = self.deadline is not None and now >= self.deadline
        if isinstance(error, DeadlinePassed) or (over and isinstance(error, Cancelled)):
            # Who is cancelled and expires runs already.
            runs = self.cancelled and isinstance(error, DeadlinePassed)
            plan.series.late(AT_REPLY if runs else IN_QUEUE)
        # Of outputs that could not be sent, too, whoever ran it learns that nobody has them.
        self.cancelled = True
        total = now - self.started
        plan.handle.statistics.failed(total)
        if isinstance(error, EngineFailure | InvalidInput):
            self._tell(error)
        plan.series.answered(code_name(error), total)
        self.call.fail(error)

    def _tell(self, error: InferdError) -> None:
        """Write to the log whose request it was that failed."""
        handle = self.plan.handle
        about = {"model": handle.name, "version": handle.version, "request": ident(self.identity)}
        level = logging.ERROR if isinstance(error, EngineFailure) else logging.INFO
        kind = handle.name, handle.version, level
        telemetry = self._answering.telemetry
        telemetry.failures(kind, level, "a request failed", {**about, "error": str(error)})


def ident(field: bytes) -> str:
    """Return the id in the field of a message that holds it; "" where there is none."""
    # A tag and a length that is a varint come before it.
    begin = next((at + 1 for at, byte in enumerate(field[1:], 1) if byte < 128), len(field))
    return field[begin:].decode(errors="replace")


def cancel(queue: RequestQueue, job: Job) -> None:
    """End a job whose caller went away, unless it runs already."""
    job.cancelled = True
    if queue.withdraw(job):
        job.fail(Cancelled("the caller went away while the request waited"))


def expire(queue: RequestQueue, job: Job) -> None:
    """End a job whose time is over, whether it waits or runs."""
    error = DeadlinePassed("the deadline passed before the request was answered")
    if queue.withdraw(job):
        job.fail(error)
    elif not job.answered:
        # Its rows are in use until the engine is done with them, and what it left is for nobody.
        job.cancelled = True
        job.fail_early(error)
