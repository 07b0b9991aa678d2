"""ModelInfer: from a call to a job in a queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.tensors import Buffer

from inferd_server.batching.inline import MOST_TEXT
from inferd_server.batching.run_costs import Alone
from inferd_server.batching.slots import Bound, NoRoom, Slot
from inferd_server.batching.timers import Timers
from inferd_server.cache.key import Form
from inferd_server.cache.lead import Lead
from inferd_server.cache.response_cache import ResponseCache
from inferd_server.errors import (
    DeadlinePassed,
    EngineFailure,
    InferdError,
    InvalidInput,
    ModelNotReady,
    WouldBeLate,
)
from inferd_server.feedback.tokens import TokenSigner
from inferd_server.inference.cacheable import encoded, payloads
from inferd_server.inference.checking import Examined, examine
from inferd_server.inference.deadline_admission import check_time, earliest, queue_full
from inferd_server.inference.formatting import Formatting
from inferd_server.inference.infer_request import (
    SWAPS,
    Answering,
    InferRequest,
    Telemetry,
    cancel,
    expire,
)
from inferd_server.inference.inputs import Checked, text_elements
from inferd_server.inference.request_plan import Plan
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.template import Parts, Template, TemplateCache, learn, split
from inferd_server.inference.tracing import Tracing
from inferd_server.inference.trailers import Trailers
from inferd_server.inference.wire import identity_field, is_text, parse
from inferd_server.models.entries import Models
from inferd_server.models.version import Handle
from inferd_server.monitoring.series import ON_ARRIVAL
from inferd_server.sequences.steps import ID
from inferd_server.threads import SideThread
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name

log = logging.getLogger(__name__)


class Infer:
    """Handler of ModelInfer. Called on one thread."""

    def __init__(
        self,
        models: Models,
        regions: RegionTable,
        telemetry: Telemetry,
        cache: ResponseCache,
        signer: TokenSigner,
        sampling: Sampling,
        trailers: Trailers | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._models = models
        self._signer = signer
        self._cache = cache
        self._regions = regions
        self._sampling = sampling
        self._metrics = telemetry.metrics
        self._clock = telemetry.clock
        told = trailers or Trailers()
        self._answering = Answering(telemetry, self._again, Formatting(), told, tracing)
        self._templates: TemplateCache[Plan] = TemplateCache()
        self._alarms = Timers(telemetry.clock)
        self._decoding = SideThread("decoding", "requests with much text wait to be read")

    def __call__(self, call: Call) -> None:
        """Admit a call, or refuse it at once."""
        request = InferRequest(call, self._clock(), self._answering)
        message = call.request
        parts = split(message)
        template = None if parts is None else self._templates.find(message, parts)
        if parts is None or template is None or not self._repeat(request, template, parts):
            self._check(request, parts)

    def forget(self) -> None:
        """Look every model up anew: some have changed. May be called from any thread."""
        self._templates = TemplateCache()

    def _repeat(self, request: InferRequest, template: Template[Plan], parts: Parts) -> bool:
        """Queue a request that looks exactly like one that was admitted; False if it is not."""
        message = request.call.request
        plan = template.known
        head, rest = parts
        identity = message[head:rest]
        if not identity.isascii() and not is_text(identity[2:]):
            return False
        try:
            if plan.places and not plan.current(self._regions):
                self.forget()
                return False
            request.identity, request.plan = identity, plan
            if plan.form is not None:
                elements = payloads(plan, template, message, rest)
                if not self._lead(request, plan.form, elements):
                    return True
            slot = reserve(request)
            try:
                fill(slot, plan, template, message, rest)
            except BaseException:
                slot.free()
                raise
            done = self._submit(request, slot)
        except Exception as error:
            self._refuse(request.call, plan.handle, told(error))
            done = True
        if not done and plan.form is not None:
            # Others may follow this call, so it goes on as what it has become.
            self._check(request, parts)
            done = True
        return done

    def _check(
        self, request: InferRequest, parts: Parts | None = None, *, aside: bool = False
    ) -> None:
        """Parse a request, look its model up, and admit it or refuse it.

        With `aside`, on a thread that may take its time.
        """
        handle: Handle | None = None
        # Once: the call lets go of it when it is answered, which may be before this ends.
        message = request.call.request
        try:
            parsed, raw = parse(message)
            # A step of a sequence goes behind those whose text is still read.
            behind = ID in parsed.parameters and self._decoding.busy
            if not aside and (behind or text_elements(parsed) > MOST_TEXT):
                later = partial(self._check, request, parts, aside=True)
                self._decoding.submit(len(message), later)
                return
            request.identity = identity_field(parsed.id)
            for _ in range(SWAPS):
                # Taken before the model is looked up: what a swap makes wrong goes with it.
                templates = self._templates
                handle = self._models.resolve(parsed.model_name, parsed.model_version)
                found = self._examine(parsed, raw, handle)
                request.plan = found.plan
                if self._enter(request, found) or self._admit(request, found.inputs):
                    remember(templates, message, parts, found.plan)
                    return
            raise ModelNotReady(f"model {parsed.model_name!r} is being replaced")
        except Exception as error:
            self._refuse(request.call, handle, told(error))

    def _examine(
        self, parsed: ModelInferRequest, raw: Sequence[Buffer], handle: Handle
    ) -> Examined:
        regions, metrics = self._regions, self._metrics
        return examine(parsed, raw, handle, regions, metrics, self._signer, self._sampling)

    def _enter(self, request: InferRequest, found: Examined) -> bool:
        """Ask the response cache; True if the request needs no run of its own."""
        form, call = found.plan.form, request.call
        if form is not None:
            return not self._lead(request, form, encoded(found.elements))
        if isinstance(call, Lead):
            request.call = self._cache.dismiss(call)
        return False

    def _lead(self, request: InferRequest, form: Form, elements: Sequence[Buffer]) -> bool:
        """Ask the response cache; True if the request has to run, for itself and equal ones."""
        lead = self._cache.enter(
            request.call,
            request.identity,
            form,
            elements,
            request.started,
            request.attempt,
            self._resume,
        )
        if lead is not None:
            request.call = lead
        return lead is not None

    def _refuse(self, call: Call, handle: Handle | None, error: InferdError) -> None:
        known = None if handle is None else (handle.name, handle.version)
        self._metrics.refused(known, code_name(error))
        if known is not None and isinstance(error, DeadlinePassed | WouldBeLate):
            self._metrics.of(*known).late(ON_ARRIVAL)
        call.fail(error)

    def _admit(self, request: InferRequest, inputs: Sequence[Checked]) -> bool:
        """Queue a checked request; False if the handle was retired meanwhile."""
        slot = reserve(request)
        try:
            # A step of a sequence has more inputs than its caller gave.
            for item, target in zip(inputs, slot.inputs, strict=False):
                item.write(target)
            step = request.plan.step
            if step is not None:
                step.write(slot.inputs[len(inputs) :])
        except BaseException:
            slot.free()
            raise
        return self._submit(request, slot)

    def _submit(self, request: InferRequest, slot: Slot) -> bool:
        """Queue a request; False, with its slot free, if the handle was retired meanwhile."""
        plan, call = request.plan, request.call
        handle, urgency, step = plan.handle, plan.urgency, plan.step
        if handle.last_request is not None and not plan.alone:
            handle.last_request.keep(slot)
        key = Alone(plan.specs) if plan.alone else plan.specs
        # Sequences keep the order of their steps.
        sequence, stream = (0, call.stream) if step is None else (step.key, None)
        deadline = request.deadline
        request.place(slot, key, self._clock(), deadline, urgency.level, sequence, False, stream)
        queue = handle.queue
        plan.series.admitted()
        if not queue.submit(request):
            plan.series.withdrawn()
            slot.free()
            return False
        call.on_cancel(partial(cancel, queue, request))
        if urgency.timeout is not None and deadline is not None:
            # Those of calls end by gRPC's own timers.
            request.watch(self._alarms.at(deadline, partial(expire, queue, request)))
        return True

    def _again(self, request: InferRequest) -> None:
        """Admit a request anew whose model was replaced in the worker before it ran; any thread."""
        self._resume(request.call, request.started, request.attempt + 1)

    def _resume(self, call: Call, started: float, attempt: int) -> None:
        """Admit a call that waited for an equal one, or for Redis, in vain; any thread."""
        self._check(InferRequest(call, started, self._answering, attempt))


def told(error: Exception) -> InferdError:
    """Return what a caller is told; what was not raised on purpose goes to the log."""
    if isinstance(error, InferdError):
        return error
    log.error("a request could not be admitted", exc_info=error)
    return EngineFailure()


def remember(
    templates: TemplateCache[Plan], message: bytes, parts: Parts | None, plan: Plan
) -> None:
    """Recognise the next request that looks like this one, if it may go unchecked."""
    template = learn(message, parts[1], plan) if parts and plan.sources is not None else None
    if parts is not None and template is not None:
        templates.add(message, parts, template)


def reserve(request: InferRequest) -> Slot:
    """Reserve a slot for a request whose plan is known, and note its deadline.

    Raises:
        DeadlinePassed: it came too late.
        WouldBeLate: its answer would.
        InvalidInput: it is larger than any slot.
        QueueFull: no room.
    """
    plan, started = request.plan, request.started
    deadline = request.deadline = earliest(request.call.deadline, started, plan.urgency.timeout)
    if deadline is not None or plan.handle.bounds.max_queue_wait:
        check_time(plan, deadline, started)
    try:
        return plan.arena.reserve(plan.specs, plan.rows, plan.nbytes, plan.urgency.level)
    except NoRoom as full:
        raise no_room(plan, started, full.bound) from None


def fill(slot: Slot, plan: Plan, template: Template[Plan], message: bytes, rest: int) -> None:
    """Write the rows of a request that fits a template into its slot.

    Raises:
        InvalidInput: shared memory shrank meanwhile.
    """
    for index, source in enumerate(plan.sources or ()):
        memory = slot.memory(index)
        if isinstance(source, int):
            memory[:] = template.elements(message, rest, source)
        else:
            source.read(memory)


def no_room(plan: Plan, now: float, bound: Bound) -> InferdError:
    """Return the error for a request that met a bound: a lasting one, or one of this moment."""
    handle, bounds = plan.handle, plan.handle.bounds
    taken = f"the request's inputs take {plan.nbytes} bytes"
    if plan.nbytes > bounds.max_queue_bytes:
        return InvalidInput(
            f"{taken}; model {handle.name!r} accepts {bounds.max_queue_bytes} (max_queue_bytes)"
        )
    if not handle.arena.fits(plan.specs, plan.rows, plan.nbytes):
        return InvalidInput(f"{taken}, more than the largest slot holds (input_bytes)")
    return queue_full(plan, now, bound)
