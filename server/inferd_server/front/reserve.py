"""A slot for an admitted request, and its rows written into it."""

from __future__ import annotations

from inferd_server.errors import DeadlinePassed, InferdError, InvalidInput, QueueFull
from inferd_server.front.plan import Plan
from inferd_server.front.template import Template
from inferd_server.scheduler.slot import Slot


def reserve(plan: Plan, deadline: float | None, started: float) -> Slot:
    """Reserve a slot for a request.

    Raises:
        DeadlinePassed: it came too late.
        InvalidInput: it is larger than any slot.
        QueueFull: no room.
    """
    if deadline is not None and started >= deadline:
        raise DeadlinePassed("the deadline had passed when the request arrived")
    slot = plan.arena.reserve(plan.specs, plan.rows, plan.nbytes)
    if slot is None:
        raise no_room(plan)
    return slot


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


def no_room(plan: Plan) -> InferdError:
    """Say which bound a request met: of all slots, or of its model's queue."""
    handle, bounds = plan.handle, plan.handle.bounds
    taken = f"the request's inputs take {plan.nbytes} bytes"
    if plan.nbytes > bounds.max_queue_bytes:
        return InvalidInput(
            f"{taken}; model {handle.name!r} accepts {bounds.max_queue_bytes} (max_queue_bytes)"
        )
    if not handle.arena.fits(plan.specs, plan.rows, plan.nbytes):
        return InvalidInput(f"{taken}, more than the largest slot holds (input_bytes)")
    return QueueFull(
        f"the queue of model {handle.name!r} has no room for {plan.rows} rows of {plan.nbytes} "
        f"bytes in all: it holds {handle.arena.rows} rows, and may hold {bounds.max_queue_rows} "
        f"(max_queue_rows) or {bounds.max_queue_bytes} bytes (max_queue_bytes)"
    )
