"""Requests turned away at the door, because their answer would come too late."""

from __future__ import annotations

from inferd_server.batching.batch_size import NEVER
from inferd_server.batching.slots import Bound
from inferd_server.errors import DeadlinePassed, QueueFull, WouldBeLate
from inferd_server.inference.request_plan import Plan


def earliest(deadline: float | None, started: float, timeout: float | None) -> float | None:
    """Return when a request has to be answered, in monotonic seconds; None: at no time.

    Args:
        deadline: of the call.
        started: when the request arrived.
        timeout: seconds that the request names itself.
    """
    if timeout is None:
        return deadline
    own = started + timeout
    return own if deadline is None else min(own, deadline)


LEAST_RUN_S = 1e-5
"""What no run takes less than: who has no more time is refused though nothing is known yet."""


def check_time(plan: Plan, deadline: float | None, now: float) -> None:
    """Refuse a request that the requests before it make late.

    Raises:
        DeadlinePassed: its deadline has passed, or is too short for the run alone.
        WouldBeLate: too many wait before it; `retry_after` says for how long.
    """
    slack = NEVER if deadline is None else deadline - now
    if slack < LEAST_RUN_S:
        raise too_short(slack)
    forecast, held = plan.handle.forecast, rows_before(plan)
    if not held:
        forecast.begin(now)
    if plan.handle.bounds.max_queue_wait or forecast.presses(slack, held):
        check_closely(plan, slack, now)


def too_short(slack: float) -> DeadlinePassed:
    """Return the error for a request that no run could answer in time, with so many seconds."""
    if slack <= 0:
        return DeadlinePassed("the deadline had passed when the request arrived")
    text = f"the deadline is in {milliseconds(slack)}, and no run is that short"
    return DeadlinePassed(text, reason="DEADLINE_TOO_SHORT")


def check_closely(plan: Plan, slack: float, now: float) -> None:
    """Refuse a request with so many seconds, or a bound of its wait, if it cannot be in time.

    Raises:
        DeadlinePassed: the run alone takes too long.
        WouldBeLate: too many wait before it; `retry_after` says for how long.
    """
    handle, arena = plan.handle, plan.arena
    forecast, most_wait = handle.forecast, handle.bounds.max_queue_wait
    model, run = f"model {handle.name!r}", forecast.quickest(plan.specs, plan.rows, now)
    if run > slack:
        raise DeadlinePassed(
            f"a run of {model} takes about {milliseconds(run)}, and the deadline is in "
            f"{milliseconds(slack)}",
            reason="DEADLINE_TOO_SHORT",
        )
    part, others = arena.part_before(plan.urgency.level), elsewhere(plan)
    expected = forecast.expect(plan.specs, plan.rows, arena.by_shape, others, part, now)
    late = expected.total > slack
    if expected.wait and (late or (most_wait and expected.wait > most_wait)):
        bound = "the deadline is in" if late else "max_queue_wait_ms allows"
        raise WouldBeLate(
            f"{model} has {rows_before(plan)} rows in work: the request would wait for about "
            f"{milliseconds(expected.wait)} and run for {milliseconds(expected.run)}, and {bound} "
            f"{milliseconds(slack if late else most_wait)}",
            retry_after=expected.wait,
        )


def rows_before(plan: Plan) -> int:
    """Return the rows that wait or run and are wanted, those of other processes among them."""
    return plan.arena.wanted + elsewhere(plan)


def elsewhere(plan: Plan) -> int:
    """Return the rows that wait and are of other processes."""
    # The queue counts those of this process, too, until whoever runs them lets them go.
    return max(0, plan.handle.queue.rows - plan.arena.rows)


def queue_full(plan: Plan, now: float, bound: Bound) -> QueueFull:
    """Say which bound a request met, and when there may be room."""
    handle = plan.handle
    run = handle.forecast.quickest(plan.specs, plan.rows, now)
    request = f"{plan.rows} rows of {plan.nbytes} bytes in all"
    return QueueFull(
        f"model {handle.name!r} has no room for {request}: {met(plan, bound)}",
        retry_after=run or None,
    )


def met(plan: Plan, bound: Bound) -> str:
    """Say in words how much is held, and which setting says that it is enough."""
    bounds, arena, level = plan.handle.bounds, plan.arena, plan.urgency.level
    if bound is Bound.ROWS:
        return f"{arena.rows} rows wait or run, and {bounds.max_queue_rows} may (max_queue_rows)"
    if bound is Bound.BYTES:
        held, most = arena.nbytes, bounds.max_queue_bytes
        return f"{held} bytes wait or run, and {most} bytes may (max_queue_bytes)"
    if bound is Bound.PRIORITY:
        own = bounds.level_rows.get(level)
        return f"priority {level + 1} may have {own} rows waiting or running (priority_queue_rows)"
    return (
        "the requests of all models that wait or run at this front fill its memory for inputs "
        "(input_bytes)"
    )


def milliseconds(seconds: float) -> str:
    """Write a time."""
    return f"{seconds * 1000:.3g} ms"
