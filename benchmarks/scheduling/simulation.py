"""The scheduler's own queue and admission before engines that only take time.

Time is a number that moves from event to event, so that minutes of load take a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any, cast

import numpy as np
from inferd_engines.engine import RowSpec, Signature
from inferd_server.batching.batch_size import NEVER
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.slots import Arena, Slot
from inferd_server.errors import DeadlinePassed, WouldBeLate
from inferd_server.inference.deadline_admission import check_time
from inferd_server.inference.request_plan import Plan
from inferd_server.inference.validation import Urgency
from inferd_server.models.config import ModelConfig
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.phases import Execution
from inferd_server.monitoring.statistics import Statistics

from benchmarks.scheduling.loads import Arrival
from benchmarks.scheduling.oracle import Outcome

HEAD_START_S = 60.0
"""By which a priority goes before the next lower one."""
ROOM = 1 << 20
"""Rows and bytes that may wait: no bound."""
Takes = Callable[[int, int, float], float]
"""Seconds of a run, by shape, rows and when it begins."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue."""

    arrival: Arrival
    slot: Slot
    key: tuple[RowSpec, ...]
    arrived: float
    deadline: float | None
    level: int
    rows: int
    trial: bool = False
    cancelled: bool = False
    sequence: int = 0
    delay_at: float = NEVER
    stream: object | None = None


class Simulation:
    """One model, its instances and its callers."""

    def __init__(
        self, bounds: ModelBounds, takes: Takes, instances: int = 1, *, split: bool = False
    ) -> None:
        """Begin idle.

        Args:
            bounds: of batches and waits.
            takes: what a run takes.
            instances: that run batches beside each other.
            split: callers stand before another process, which knows what answers tell.
        """
        self.now = 0.0
        self.outcome = Outcome()
        self.refusals: list[tuple[Arrival, DeadlinePassed | WouldBeLate]] = []
        self.dropped = 0
        """Requests that were let in and did not run."""
        self._takes = takes
        self._instances = instances
        self._running = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.queue: BatchQueue[Any] = BatchQueue(bounds.limits, lambda: self.now)
        self._arena = Arena(ROOM, ROOM, None, {}, bounds.levels)
        costs = None if split else self.queue.costs
        self._forecast = Forecast(bounds.limits, costs, instances)
        given = ("m", 1, ModelConfig(), Signature((), ()), bounds, "", "", "")
        handle = Handle(*given, self.queue, self._arena, Statistics(), self._forecast)
        self._plan = cache(partial(plan_of, handle))

    def serve(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Let requests come, and return what became of them and of those before."""
        for arrival in arrivals:
            self.at(arrival.at, partial(self._arrive, arrival))
        self.outcome.sent += len(arrivals)
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
            while self._running < self._instances and self._look():
                pass
        assert not self.queue.rows
        assert not self._arena.rows
        return self.outcome

    def at(self, when: float, happen: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _arrive(self, arrival: Arrival) -> None:
        plan = self._plan(arrival.shape, arrival.level, arrival.rows)
        deadline = arrival.deadline if arrival.deadline < NEVER else None
        try:
            check_time(plan, deadline, self.now)
        except (DeadlinePassed, WouldBeLate) as refusal:
            self.outcome.turned_away.append(self.now)
            self.refusals.append((arrival, refusal))
            return
        slot = self._arena.reserve(plan.specs, arrival.rows, plan.nbytes, arrival.level)
        waiter = Waiter(
            *(arrival, slot, plan.specs, self.now, deadline, arrival.level, arrival.rows),
            trial=arrival.trial,
        )
        self.queue.submit(waiter)
        end = min(arrival.deadline, arrival.leaves)
        if end < NEVER:
            self.at(end, lambda: self._leave(waiter))

    def _leave(self, waiter: Waiter) -> None:
        """End a call: its time is over, or its caller went away."""
        waiter.cancelled = True
        if self.queue.withdraw(waiter):
            waiter.slot.free()
            self.dropped += 1

    def _look(self) -> bool:
        """Begin a batch on a free instance, if there is one now."""
        decision = self.queue.poll()
        for dropped in decision.drop:
            dropped.slot.free()
            self.dropped += 1
        if decision.run:
            self._begin(decision.run)
        elif decision.wake is not None:
            self.at(decision.wake, lambda: None)
        return bool(decision.run or decision.drop)

    def _begin(self, run: Sequence[Waiter]) -> None:
        self._running += 1
        took = self._takes(run[0].arrival.shape, rows_of(run), self.now)
        self.at(self.now + took, lambda: self._end(run, took))

    def _end(self, run: Sequence[Waiter], took: float) -> None:
        self._running -= 1
        rows = rows_of(run)
        self.queue.costs.learn(run[0].key, rows, took, self.now)
        # No two runs of an engine take exactly as long.
        told = Execution(rows, 0.0, next(self._order) * 1e-12, took)
        for waiter in run:
            self._forecast.learn(waiter.key, told, self.now)
            waiter.slot.free()
            self.outcome.end(waiter.arrival, self.now)


def rows_of(requests: Sequence[Waiter]) -> int:
    """Return the rows of all."""
    return sum(request.rows for request in requests)


def plan_of(handle: Handle, shape: int, level: int, rows: int) -> Plan:
    """Return what admission has to know of requests, and nothing else."""
    nothing = cast(Any, None)
    specs = ((np.dtype(np.uint8), (shape + 1,)),)
    urgency = Urgency(level=level, timeout=None)
    return Plan(handle, handle.arena, nothing, specs, rows, 1, True, nothing, None, urgency, None)


def bounds_of(
    most: int, delay: float = 0.0, levels: int = 1, most_wait: float = 0.0
) -> ModelBounds:
    """Return the bounds of a model without others than these; times in seconds."""
    return ModelBounds(
        most, delay, ROOM, ROOM, levels=levels, head_start=HEAD_START_S, max_queue_wait=most_wait
    )
