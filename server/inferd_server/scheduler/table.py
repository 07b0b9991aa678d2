"""What to run next, over a table of requests: the same decision as `next_batch`, by columns.

The worker process decides for whole batches at a time, so that a request costs it no Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inferd_server.scheduler.decision import Limits
from inferd_server.scheduler.sizes import worth_running

Table: TypeAlias = np.ndarray[Any, np.dtype[np.void]]
"""Requests in the order in which they are due, with the columns rows, key, arrived, deadline."""


@dataclass(frozen=True, slots=True)
class TableDecision:
    """Run these together, answer those without running, keep the rest, look again at `wake`."""

    run: Table
    drop: Table
    keep: Table
    wake: float | None = None
    waited: float = 0.0
    """Seconds for which the caller was held back before this batch, by `wake`."""
    full: bool = False
    """More requests would not have fitted into it."""


def next_table(
    waiting: Table, cancelled: npt.NDArray[np.bool_], now: float, limits: Limits
) -> TableDecision:
    """Choose a batch, whoever is due first.

    The first live request leads; requests with its key follow in order until one
    does not fit. A batch short of `max_rows` waits until its leader is `max_delay` old, unless
    one of its requests would expire first. All that are cancelled or expired are dropped.

    Args:
        waiting: requests in the order in which they are due.
        cancelled: for each, whether its caller went away.
        now: monotonic seconds.
        limits: bounds of a batch.
    """
    dead = cancelled | (waiting["deadline"] <= now)
    drop = waiting[dead]
    live = waiting if not len(drop) else waiting[~dead]
    if not len(live):
        return TableDecision(live, drop, live)
    same = live["key"] == live["key"][0]
    candidates = live[same]
    rows = np.cumsum(candidates["rows"])
    count = max(1, int(np.searchsorted(rows, limits.max_rows, side="right")))
    run = candidates[:count]
    full = count < len(candidates) or rows[count - 1] >= limits.max_rows
    ripe = float(run["arrived"][0]) + limits.max_delay
    if not (full or now >= ripe or bool((run["deadline"] <= ripe).any())):
        return TableDecision(live[:0], drop, live, ripe)
    if limits.sizes:
        count = worth_running(rows[:count].tolist(), limits.sizes)
        run = candidates[:count]
    if count == len(live):
        return TableDecision(run, drop, live[:0], full=full)
    chosen = np.zeros(len(live), dtype=bool)
    chosen[np.flatnonzero(same)[:count]] = True
    return TableDecision(run, drop, live[~chosen], full=full)
