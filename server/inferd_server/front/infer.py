"""ModelInfer: from a call to a job in a queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Buffer

from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    InferdError,
    InvalidInput,
    ModelNotReady,
    QueueFull,
)
from inferd_server.front.admission import admit, requested_outputs
from inferd_server.front.answer import Echoed, plan_outputs
from inferd_server.front.fill import Checked, Writable, locate, row_specs
from inferd_server.front.outcome import Answer, Telemetry
from inferd_server.front.plan import Echo, Plan, payload_order
from inferd_server.front.regions import RegionTable
from inferd_server.front.template import TemplateCache, learn, split
from inferd_server.front.wire import parse
from inferd_server.repository.entries import Models
from inferd_server.repository.handle import Handle
from inferd_server.scheduler.job import Job
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)

# A model swapped between being looked up and being given a job is looked up again.
SWAPS = 3


class Infer:
    """Handler of ModelInfer. Called on one thread."""

    def __init__(self, models: Models, regions: RegionTable, telemetry: Telemetry) -> None:
        self._models = models
        self._regions = regions
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._clock = telemetry.clock
        self._templates: TemplateCache[Plan] = TemplateCache()

    def __call__(self, call: Call) -> None:
        """Admit a call, or refuse it at once."""
        handle: Handle | None = None
        started = self._clock()
        try:
            if self._repeat(call, started):
                return
            request, raw = parse(call.request)
            for _ in range(SWAPS):
                # Taken before the model is looked up: what a swap makes wrong goes with it.
                templates = self._templates
                handle = self._models.resolve(request.model_name, request.model_version)
                if self._admit(call, request, raw, handle, templates, started):
                    return
            raise ModelNotReady(f"model {request.model_name!r} is being replaced")
        except InferdError as error:
            self._refuse(call, handle, error)
        except Exception:
            log.exception("a request could not be admitted")
            self._refuse(call, handle, EngineFailure())

    def forget(self) -> None:
        """Look every model up anew: some have changed. May be called from any thread."""
        self._templates = TemplateCache()

    def _refuse(self, call: Call, handle: Handle | None, error: InferdError) -> None:
        known = None if handle is None else (handle.name, handle.version)
        if handle is not None:
            handle.statistics.failed(0.0)
        self._metrics.refused(known, code_name(error))
        call.fail(error)

    def _repeat(self, call: Call, started: float) -> bool:
        """Queue a request that looks exactly like one that was admitted; False if none does."""
        message = call.request
        parts = split(message)
        template = None if parts is None else self._templates.find(message, parts)
        if parts is None or template is None:
            return False
        try:
            echo = Echo(template.known.handle.name, str(parts.id(message), "utf-8"))
        except UnicodeDecodeError:
            return False
        payloads = [template.payload(message, parts.rest, k) for k in template.known.order]
        try:
            return self._submit(call, echo, template.known, payloads, started)
        except InferdError as error:
            self._refuse(call, template.known.handle, error)
            return True

    def _admit(
        self,
        call: Call,
        request: ModelInferRequest,
        raw: Sequence[Buffer],
        handle: Handle,
        templates: TemplateCache[Plan],
        started: float,
    ) -> bool:
        """Check a request, queue it, and remember how it looks; False as `_submit`."""
        admitted = admit(request, raw, handle.signature, handle.bounds.max_batch_size)
        wanted = requested_outputs(request, handle.signature)
        targets = plan_outputs(wanted, handle.signature, handle.config.labels, self._regions)
        elements = locate(admitted, self._regions)
        plan = Plan(
            handle,
            tuple(row_specs(admitted, handle.batched)),
            admitted.rows,
            sum(item.nbytes for item in elements),
            tuple(targets),
            payload_order(admitted, raw, targets),
        )
        writers = [
            Checked(item, source) for item, source in zip(admitted.inputs, elements, strict=True)
        ]
        if not self._submit(call, request, plan, writers, started):
            return False
        parts = split(call.request)
        template = learn(call.request, parts.rest, plan) if plan.order and parts else None
        if template is not None and parts is not None:
            templates.add(call.request, parts, template)
        return True

    def _submit(
        self,
        call: Call,
        request: Echoed,
        plan: Plan,
        elements: Sequence[Writable],
        started: float,
    ) -> bool:
        """Fill a slot and queue a job; False if the handle was retired meanwhile."""
        handle = plan.handle
        if call.deadline is not None and started >= call.deadline:
            raise DeadlinePassed("the deadline had passed when the request arrived")
        job = self._job(call, request, plan, elements, started)
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
        request: Echoed,
        plan: Plan,
        elements: Sequence[Writable],
        started: float,
    ) -> Job:
        """Reserve a slot and write the rows into it.

        Raises:
            QueueFull: no room.
        """
        handle = plan.handle
        slot = handle.arena.reserve(plan.specs, plan.rows, plan.nbytes)
        if slot is None:
            raise queue_full(handle, plan.rows, plan.nbytes)
        try:
            for source, target in zip(elements, slot.inputs, strict=True):
                source.write(target)
        except BaseException:
            slot.free()
            raise
        answer = Answer(call, request, handle, plan.targets, plan.rows, started, self._telemetry)
        key = plan.specs if handle.batched else id(slot)
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
