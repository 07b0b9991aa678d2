"""ModelInfer: from a call to a job in a queue, and from its outputs to the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Array, Buffer

from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    InferdError,
    InvalidInput,
    ModelNotReady,
    QueueFull,
)
from inferd_server.front.admission import Admitted, admit, requested_outputs
from inferd_server.front.answer import Target, encode_response, plan_outputs
from inferd_server.front.fill import Elements, RegionElements, locate, row_specs, write
from inferd_server.front.regions import RegionTable
from inferd_server.front.wire import parse
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.handle import Handle
from inferd_server.repository.repository import Repository
from inferd_server.scheduler.job import Job, Phases
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)

# A model swapped between being looked up and being given a job is looked up again.
SWAPS = 3


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where requests are counted, and the clocks."""

    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Seconds since the epoch."""


class Infer:
    """Handler of ModelInfer."""

    def __init__(self, repository: Repository, regions: RegionTable, telemetry: Telemetry) -> None:
        self._repository = repository
        self._regions = regions
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._clock = telemetry.clock

    def __call__(self, call: Call) -> None:
        """Admit a call, or refuse it at once."""
        handle: Handle | None = None
        started = self._clock()
        try:
            request, raw = parse(call.request)
            for _ in range(SWAPS):
                handle = self._repository.resolve(request.model_name, request.model_version)
                if self._submit(call, request, raw, handle, started):
                    return
            raise ModelNotReady(f"model {request.model_name!r} is being replaced")
        except InferdError as error:
            self._refuse(call, handle, error)
        except Exception:
            log.exception("a request could not be admitted")
            self._refuse(call, handle, EngineFailure())

    def _refuse(self, call: Call, handle: Handle | None, error: InferdError) -> None:
        known = None if handle is None else (handle.name, handle.version)
        if handle is not None:
            handle.statistics.failed(0.0)
        self._metrics.refused(known, code_name(error))
        call.fail(error)

    def _submit(
        self,
        call: Call,
        request: ModelInferRequest,
        raw: Sequence[Buffer],
        handle: Handle,
        started: float,
    ) -> bool:
        """Fill a slot and queue a job; False if the handle was retired meanwhile."""
        admitted = admit(request, raw, handle.signature, handle.bounds.max_batch_size)
        wanted = requested_outputs(request, handle.signature)
        targets = plan_outputs(wanted, handle.signature, handle.config.labels, self._regions)
        elements = locate(admitted, self._regions)
        if call.deadline is not None and started >= call.deadline:
            raise DeadlinePassed("the deadline had passed when the request arrived")
        job = self._job(call, request, handle, admitted, elements, targets, started)
        self._metrics.admitted(handle.name, handle.version)
        if not handle.queue.submit(job):
            self._metrics.withdrawn(handle.name, handle.version)
            job.slot.free()
            return False
        call.on_cancel(lambda: self._cancel(handle, job))
        return True

    def _job(
        self,
        call: Call,
        request: ModelInferRequest,
        handle: Handle,
        admitted: Admitted,
        elements: Sequence[Elements | RegionElements],
        targets: Sequence[Target],
        started: float,
    ) -> Job:
        """Reserve a slot and write the rows into it.

        Raises:
            QueueFull: no room.
        """
        specs = row_specs(admitted, handle.batched)
        nbytes = sum(item.nbytes for item in elements)
        slot = handle.arena.reserve(specs, admitted.rows, nbytes)
        if slot is None:
            raise queue_full(handle, admitted.rows, nbytes)
        try:
            write(admitted, elements, slot.inputs)
        except BaseException:
            slot.free()
            raise
        answer = Answer(call, request, handle, targets, admitted.rows, started, self._telemetry)
        key = tuple(specs) if handle.batched else id(slot)
        return Job(slot, key, self._clock(), call.deadline, answer.finish, answer.fail)

    def _cancel(self, handle: Handle, job: Job) -> None:
        job.cancelled = True
        if handle.queue.withdraw(job):
            job.fail(Cancelled("the caller went away while the request waited"))


def queue_full(handle: Handle, rows: int, nbytes: int) -> InferdError:
    """Say which bound of a model's queue a request met."""
    bounds = handle.bounds
    if nbytes > bounds.max_queue_bytes:
        return InvalidInput(
            f"the request's inputs take {nbytes} bytes; model {handle.name!r} accepts "
            f"{bounds.max_queue_bytes} (max_queue_bytes)"
        )
    return QueueFull(
        f"the queue of model {handle.name!r} has no room for {rows} rows of {nbytes} bytes in all: "
        f"it holds {handle.arena.rows} rows, and may hold {bounds.max_queue_rows} (max_queue_rows) "
        f"or {bounds.max_queue_bytes} bytes (max_queue_bytes)"
    )


class Answer:
    """What happens when a job ends: the response, and the counters."""

    def __init__(
        self,
        call: Call,
        request: ModelInferRequest,
        handle: Handle,
        targets: Sequence[Target],
        rows: int,
        started: float,
        telemetry: Telemetry,
    ) -> None:
        self._call = call
        self._request = request
        self._handle = handle
        self._targets = targets
        self._rows = rows
        self._started = started
        self._telemetry = telemetry

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Send the outputs; a response that cannot be made is an error of this job alone."""
        ran = self._telemetry.clock()
        try:
            parts = encode_response(self._request, self._handle.version, self._targets, outputs)
        except InferdError as error:
            self.fail(error)
            return
        except Exception:
            log.exception("a response could not be encoded")
            self.fail(EngineFailure())
            return
        now = self._telemetry.clock()
        wall = self._telemetry.wall()
        # Counted first: who has the answer finds it in the statistics.
        self._handle.statistics.succeeded(self._rows, now - self._started, now - ran, phases, wall)
        self._count("OK", now, phases)
        self._reply(parts)

    def fail(self, error: InferdError) -> None:
        """Send an error."""
        now = self._telemetry.clock()
        self._handle.statistics.failed(now - self._started)
        self._count(code_name(error), now, None)
        self._call.fail(error)

    def _reply(self, parts: Sequence[Buffer]) -> None:
        try:
            self._call.reply(parts)
        except Exception:
            # No memory for the joined message, most likely; the call must not stay open.
            log.exception("a response could not be sent")
            self._call.fail(EngineFailure())

    def _count(self, code: str, now: float, phases: Phases | None) -> None:
        self._telemetry.metrics.answered(
            self._handle.name, self._handle.version, code, now - self._started, phases
        )
