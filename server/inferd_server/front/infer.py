"""ModelInfer: from a call to a job in a queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Buffer

from inferd_server.errors import (
    DeadlinePassed,
    EngineFailure,
    InferdError,
    InvalidInput,
    ModelNotReady,
    QueueFull,
)
from inferd_server.front.admission import admit, requested_outputs
from inferd_server.front.answer import plan_outputs
from inferd_server.front.fill import Checked, locate, row_specs
from inferd_server.front.outcome import Answer, Telemetry, cancel
from inferd_server.front.plan import Plan, find_places, find_sources
from inferd_server.front.regions import RegionTable
from inferd_server.front.response import Responses
from inferd_server.front.template import Parts, Template, TemplateCache, learn, split
from inferd_server.front.wire import identity_field, is_text, parse
from inferd_server.repository.handle import Handle
from inferd_server.repository.repository import Repository
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.slot import Slot
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)

# A model swapped between being looked up and being given a job is looked up again.
SWAPS = 3


class Infer:
    """Handler of ModelInfer. Called on one thread."""

    def __init__(self, repository: Repository, regions: RegionTable, telemetry: Telemetry) -> None:
        self._repository = repository
        self._regions = regions
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._clock = telemetry.clock
        self._templates: TemplateCache[Plan] = TemplateCache()

    def __call__(self, call: Call) -> None:
        """Admit a call, or refuse it at once."""
        started = self._clock()
        message = call.request
        parts = split(message)
        template = None if parts is None else self._templates.find(message, parts)
        if parts is None or template is None or not self._repeat(call, parts, template, started):
            self._check(call, parts, started)

    def forget(self) -> None:
        """Look every model up anew: some have changed. May be called from any thread."""
        self._templates = TemplateCache()

    def _repeat(self, call: Call, parts: Parts, template: Template[Plan], started: float) -> bool:
        """Queue a request that looks exactly like one that was admitted; False if it is not."""
        message = call.request
        plan = template.known
        identity = message[parts.head : parts.rest]
        if not identity.isascii() and not is_text(identity[2:]):
            return False
        try:
            if plan.places and not plan.current(self._regions):
                self.forget()
                return False
            deadline = call.deadline
            slot = reserve(plan, deadline, started)
            try:
                fill(slot, plan, template, message, parts.rest)
            except BaseException:
                slot.free()
                raise
            return self._submit(call, identity, plan, slot, deadline, started)
        except InferdError as error:
            self._refuse(call, plan.handle, error)
        except Exception:
            log.exception("a request could not be admitted")
            self._refuse(call, plan.handle, EngineFailure())
        return True

    def _check(self, call: Call, parts: Parts | None, started: float) -> None:
        """Parse a request, look its model up, and admit it or refuse it."""
        handle: Handle | None = None
        try:
            request, raw = parse(call.request)
            for _ in range(SWAPS):
                # Taken before the model is looked up: what a swap makes wrong goes with it.
                templates = self._templates
                handle = self._repository.resolve(request.model_name, request.model_version)
                plan = self._admit(call, request, raw, handle, started)
                if plan is not None:
                    remember(templates, call.request, parts, plan)
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

    def _admit(
        self,
        call: Call,
        request: ModelInferRequest,
        raw: Sequence[Buffer],
        handle: Handle,
        started: float,
    ) -> Plan | None:
        """Check a request and queue it; None if the handle was retired meanwhile."""
        admitted = admit(request, raw, handle.signature, handle.bounds.max_batch_size)
        wanted = requested_outputs(request, handle.signature)
        targets = plan_outputs(wanted, handle.signature, handle.config.labels, self._regions)
        elements = locate(admitted, self._regions)
        plan = Plan(
            handle,
            handle.arena,
            self._metrics.of(handle.name, handle.version),
            tuple(row_specs(admitted, handle.batched)),
            admitted.rows,
            sum(item.nbytes for item in elements),
            handle.batched,
            Responses(request.model_name, handle.version, targets),
            find_sources(admitted, raw, elements),
            find_places(admitted, targets, elements),
        )
        deadline = call.deadline
        slot = reserve(plan, deadline, started)
        try:
            for item, source, target in zip(admitted.inputs, elements, slot.inputs, strict=True):
                Checked(item, source).write(target)
        except BaseException:
            slot.free()
            raise
        identity = identity_field(request.id)
        return plan if self._submit(call, identity, plan, slot, deadline, started) else None

    def _submit(
        self,
        call: Call,
        identity: bytes,
        plan: Plan,
        slot: Slot,
        deadline: float | None,
        started: float,
    ) -> bool:
        """Queue a job; False, with its slot free, if the handle was retired meanwhile."""
        queue = plan.handle.queue
        answer = Answer(call, identity, plan, started, self._telemetry)
        key = plan.specs if plan.batched else id(slot)
        job = Job(slot, key, self._clock(), deadline, answer.finish, answer.fail)
        plan.series.admitted()
        if not queue.submit(job):
            plan.series.withdrawn()
            slot.free()
            return False
        call.on_cancel(partial(cancel, queue, job))
        return True


def remember(
    templates: TemplateCache[Plan], message: bytes, parts: Parts | None, plan: Plan
) -> None:
    """Recognise the next request that looks like this one, if it may go unchecked."""
    template = learn(message, parts.rest, plan) if parts and plan.sources is not None else None
    if parts is not None and template is not None:
        templates.add(message, parts, template)


def reserve(plan: Plan, deadline: float | None, started: float) -> Slot:
    """Reserve a slot for a request.

    Raises:
        DeadlinePassed: it came too late.
        QueueFull: no room.
    """
    if deadline is not None and started >= deadline:
        raise DeadlinePassed("the deadline had passed when the request arrived")
    slot = plan.arena.reserve(plan.specs, plan.rows, plan.nbytes)
    if slot is None:
        raise queue_full(plan.handle, plan.rows, plan.nbytes)
    return slot


def fill(slot: Slot, plan: Plan, template: Template[Plan], message: bytes, rest: int) -> None:
    """Write the rows of a request that fits a template into its slot.

    Raises:
        InvalidInput: shared memory shrank meanwhile.
    """
    for index, source in enumerate(plan.sources or ()):
        if isinstance(source, int):
            slot.memory(index)[:] = template.elements(message, rest, source)
        else:
            source.read(slot.memory(index))


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
