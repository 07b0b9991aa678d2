"""Requests turned away at the door, because their answer would come too late."""

from __future__ import annotations

from inferd_server.batching.latency import Promise
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


def check_time(plan: Plan, deadline: float | None, now: float) -> Promise | None:
    """Refuse a request that is not expected to be answered in time.

    Returns:
        What those who are near their deadline are promised; None for all others.

    Raises:
        DeadlinePassed: its deadline has passed, or is too short for the run alone.
        WouldBeLate: too many wait before it; `retry_after` says for how long.
    """
    handle = plan.handle
    forecast, most_wait = handle.forecast, handle.bounds.max_queue_wait
    if deadline is not None and now >= deadline:
        raise DeadlinePassed("the deadline had passed when the request arrived")
    held = rows_before(plan)
    slack = float("inf") if deadline is None else deadline - now
    if not most_wait and not forecast.presses(slack, held):
        return None
    expected = forecast.expect(plan.rows, held, now)
    if expected is None:
        return None
    model = f"model {handle.name!r}"
    if expected.run > slack and not expected.wait:
        raise DeadlinePassed(
            f"a run of {model} takes about {milliseconds(expected.run)}, and the deadline is in "
            f"{milliseconds(slack)}",
            reason="DEADLINE_TOO_SHORT",
        )
    late = expected.latest > slack
    if late or (most_wait and expected.wait > most_wait):
        bound = "the deadline is in" if late else "max_queue_wait_ms allows"
        raise WouldBeLate(
            f"{model} has {held} rows in work: the request would wait for about "
            f"{milliseconds(expected.wait)} and run for {milliseconds(expected.run)}, and {bound} "
            f"{milliseconds(slack if late else most_wait)}",
            retry_after=expected.wait,
        )
    return None if deadline is None else Promise(forecast, expected.total, deadline)


def rows_before(plan: Plan) -> int:
    """Return the rows that wait or run before a request, those of other processes among them."""
    arena = plan.arena
    # The queue counts those of this process, too, until whoever runs them lets them go.
    return arena.wanted + max(0, plan.handle.queue.rows - arena.rows)


def queue_full(plan: Plan, now: float, bound: Bound) -> QueueFull:
    """Say which bound a request met, and when there may be room."""
    handle = plan.handle
    expected = handle.forecast.expect(plan.rows, rows_before(plan), now)
    request = f"{plan.rows} rows of {plan.nbytes} bytes in all"
    return QueueFull(
        f"model {handle.name!r} has no room for {request}: {met(plan, bound)}",
        retry_after=expected.run if expected else None,
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
