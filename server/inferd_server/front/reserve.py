"""A slot for an admitted request, and its rows written into it."""

from __future__ import annotations

from inferd_server.errors import InferdError, InvalidInput
from inferd_server.front.door import check_time, earliest, queue_full
from inferd_server.front.infer_request import InferRequest
from inferd_server.front.plan import Plan
from inferd_server.front.template import Template
from inferd_server.scheduler.slot import Bound, NoRoom, Slot


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
        request.promise = check_time(plan, deadline, started)
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
