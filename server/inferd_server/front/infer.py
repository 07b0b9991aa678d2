"""ModelInfer: from a call to a job in a queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from inferd_server.cache.lead import Lead
from inferd_server.cache.response_cache import ResponseCache
from inferd_server.errors import (
    EngineFailure,
    InferdError,
    ModelNotReady,
)
from inferd_server.front.cacheable import encoded, payloads
from inferd_server.front.door import earliest
from inferd_server.front.examine import examine
from inferd_server.front.fill import Checked, text_elements
from inferd_server.front.formatting import ClassifiedAnswer
from inferd_server.front.outcome import Answer, Telemetry, cancel, expire
from inferd_server.front.plan import Plan
from inferd_server.front.regions import RegionTable
from inferd_server.front.reserve import fill, reserve
from inferd_server.front.side_thread import SideThread
from inferd_server.front.template import Parts, Template, TemplateCache, learn, split
from inferd_server.front.wire import identity_field, is_text, parse
from inferd_server.repository.entries import Models
from inferd_server.repository.handle import Handle
from inferd_server.scheduler.alarms import Alarms
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.promise import Promise
from inferd_server.scheduler.slot import Slot
from inferd_server.transport.call import Call
from inferd_server.transport.status import code_name
from inferd_server.worker.inline import MOST_TEXT

log = logging.getLogger(__name__)

# A model swapped between being looked up and being given a job is looked up again.
SWAPS = 3


class Infer:
    """Handler of ModelInfer. Called on one thread."""

    def __init__(
        self, models: Models, regions: RegionTable, telemetry: Telemetry, cache: ResponseCache
    ) -> None:
        self._models = models
        self._cache = cache
        self._regions = regions
        self._telemetry = telemetry
        self._metrics = telemetry.metrics
        self._clock = telemetry.clock
        self._templates: TemplateCache[Plan] = TemplateCache()
        self._alarms = Alarms(telemetry.clock)
        self._formatting = SideThread("formatting", "outputs wait to be classified")
        self._decoding = SideThread("decoding", "requests with much text wait to be read")

    def __call__(self, call: Call) -> None:
        """Admit a call, or refuse it at once."""
        started = self._clock()
        message = call.request
        parts = split(message)
        template = None if parts is None else self._templates.find(message, parts)
        if parts is None or template is None or not self._repeat(call, template, parts, started):
            self._check(call, parts, started)

    def forget(self) -> None:
        """Look every model up anew: some have changed. May be called from any thread."""
        self._templates = TemplateCache()

    def _repeat(self, call: Call, template: Template[Plan], parts: Parts, started: float) -> bool:
        """Queue a request that looks exactly like one that was admitted; False if it is not."""
        message = call.request
        plan = template.known
        head, rest = parts
        identity = message[head:rest]
        if not identity.isascii() and not is_text(identity[2:]):
            return False
        try:
            if plan.places and not plan.current(self._regions):
                self.forget()
                return False
            if plan.form is not None:
                elements = payloads(plan, template, message, rest)
                lead = self._cache.enter(
                    call, identity, plan.form, elements, started, 1, self._resume
                )
                if lead is None:
                    return True
                call = lead
            deadline = earliest(call.deadline, started, plan.urgency.timeout)
            slot, promise = reserve(plan, deadline, started)
            try:
                fill(slot, plan, template, message, rest)
            except BaseException:
                slot.free()
                raise
            done = self._submit(call, identity, plan, slot, deadline, started, 1, promise)
        except Exception as error:
            self._refuse(call, plan.handle, told(error))
            done = True
        if not done and plan.form is not None:
            # Others may follow this call, so it goes on as what it has become.
            self._check(call, parts, started)
            done = True
        return done

    def _check(
        self,
        call: Call,
        parts: Parts | None,
        started: float,
        attempt: int = 1,
        *,
        aside: bool = False,
    ) -> None:
        """Parse a request, look its model up, and admit it or refuse it.

        With `aside`, on a thread that may take its time.
        """
        handle: Handle | None = None
        # Once: the call lets go of it when it is answered, which may be before this ends.
        message = call.request
        try:
            request, raw = parse(message)
            if not aside and text_elements(request) > MOST_TEXT:
                later = partial(self._check, call, parts, started, attempt, aside=True)
                self._decoding.submit(len(message), later)
                return
            identity = identity_field(request.id)
            for _ in range(SWAPS):
                # Taken before the model is looked up: what a swap makes wrong goes with it.
                templates = self._templates
                handle = self._models.resolve(request.model_name, request.model_version)
                found = examine(request, raw, handle, self._regions, self._metrics)
                plan = found.plan
                if plan.form is not None:
                    elements = encoded(found.elements)
                    lead = self._cache.enter(
                        call, identity, plan.form, elements, started, attempt, self._resume
                    )
                    if lead is None:
                        remember(templates, message, parts, plan)
                        return
                    call = lead
                elif isinstance(call, Lead):
                    call = self._cache.dismiss(call)
                if self._admit(call, identity, plan, found.inputs, started, attempt):
                    remember(templates, message, parts, plan)
                    return
            raise ModelNotReady(f"model {request.model_name!r} is being replaced")
        except Exception as error:
            self._refuse(call, handle, told(error))

    def _refuse(self, call: Call, handle: Handle | None, error: InferdError) -> None:
        known = None if handle is None else (handle.name, handle.version)
        self._metrics.refused(known, code_name(error))
        call.fail(error)

    def _admit(
        self,
        call: Call,
        identity: bytes,
        plan: Plan,
        inputs: Sequence[Checked],
        started: float,
        attempt: int,
    ) -> bool:
        """Queue a checked request; False if the handle was retired meanwhile."""
        deadline = earliest(call.deadline, started, plan.urgency.timeout)
        slot, promise = reserve(plan, deadline, started)
        try:
            # A step of a sequence has more inputs than its caller gave.
            for item, target in zip(inputs, slot.inputs, strict=False):
                item.write(target)
            if plan.step is not None:
                plan.step.write(slot.inputs[len(inputs) :], self._clock())
        except BaseException:
            slot.free()
            raise
        return self._submit(call, identity, plan, slot, deadline, started, attempt, promise)

    def _submit(
        self,
        call: Call,
        identity: bytes,
        plan: Plan,
        slot: Slot,
        deadline: float | None,
        started: float,
        attempt: int,
        promise: Promise | None,
    ) -> bool:
        """Queue a job; False, with its slot free, if the handle was retired meanwhile."""
        handle = plan.handle
        queue = handle.queue
        if handle.last_request is not None and not plan.alone:
            handle.last_request.keep(slot)
        again = self._again if attempt < SWAPS else None
        filled = self._clock()
        make: Callable[..., Answer] = Answer
        if plan.responses.classifies:
            make = partial(ClassifiedAnswer, self._formatting, plan.responses.targets)
        answer = make(
            call, identity, plan, started, filled, self._telemetry, again, attempt, promise
        )
        key = plan.specs if plan.batched and not plan.alone else id(slot)
        job = Job(
            slot,
            key,
            filled,
            deadline,
            answer,
            plan.urgency.level,
            plan.step is not None,
            False,
            plan.alone,
            # Sequences keep the order of their steps.
            call.stream if plan.step is None else None,
        )
        plan.series.admitted()
        if not queue.submit(job):
            plan.series.withdrawn()
            slot.free()
            return False
        call.on_cancel(partial(cancel, queue, job))
        if plan.urgency.timeout is not None and deadline is not None:
            # Those of calls end by gRPC's own timers.
            job.watch(self._alarms.at(deadline, partial(expire, queue, job)))
        return True

    def _again(self, call: Call, started: float, attempt: int) -> None:
        """Admit a call anew whose model was replaced in the worker before it ran; any thread."""
        self._check(call, None, started, attempt + 1)

    def _resume(self, call: Call, started: float, attempt: int) -> None:
        """Admit a call that waited for an equal one, or for Redis, in vain; any thread."""
        self._check(call, None, started, attempt)


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
