"""What holds whatever comes: searched at random over the real queue and the real admission."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from inferd_server.batching.batch_size import NEVER
from inferd_server.errors import DeadlinePassed

from benchmarks.scheduling.loads import Arrival
from benchmarks.scheduling.simulation import Simulation, Waiter, bounds_of

REQUESTS = 150


class Watched(Simulation):
    """A simulation in which every look at the queue is looked at."""

    def _look(self) -> bool:
        began = super()._look()
        left = self._waiting()
        if not began and left:
            self._see_that_all_wait_for_a_reason(left)
        return began

    def _begin(self, run: Sequence[Waiter]) -> None:
        super()._begin(run)
        left = [w for w in self._waiting() if not w.trial and not self._over(w)]
        for waiter in run:
            assert not self._over(waiter)
            for other in left:
                # First come, first served, within a level and a shape.
                if not waiter.trial and (other.level, other.key) == (waiter.level, waiter.key):
                    assert waiter.arrived <= other.arrived

    def _over(self, waiter: Waiter) -> bool:
        return waiter.cancelled or (waiter.deadline or NEVER) <= self.now

    def _waiting(self) -> list[Waiter]:
        return [waiter for level in self.queue._levels for waiter in level.values()]

    def _see_that_all_wait_for_a_reason(self, left: Sequence[Waiter]) -> None:
        """An instance is free, and nothing runs."""
        limits, costs = self.queue._limits, self.queue.costs
        assert limits.max_delay
        for waiter in left:
            assert not waiter.trial
            assert self.now < waiter.arrived + limits.max_delay
            rows = sum(w.rows for w in left if w.key == waiter.key)
            assert rows < limits.max_rows
            # An idle engine could meet its deadline, and will.
            if waiter.deadline is not None:
                assert self.now + costs.of(waiter.key).likely(rows) <= waiter.deadline


def mix(seed: int) -> tuple[Watched, list[Arrival]]:
    """Draw a model with all options, and what comes."""
    draw = random.Random(seed)
    most, levels = draw.choice((1, 2, 4, 8)), draw.choice((1, 1, 3))
    fixed, by_row = draw.choice((0.0, 0.005, 0.05)), draw.choice((0.001, 0.01))
    dear = draw.choice((1.0, 10.0))
    bounds = bounds_of(most, draw.choice((0.0, 0.0, 0.03, 0.3)), levels, draw.choice((0.0, 0.2)))

    def takes(shape: int, rows: int, now: float) -> float:
        slow = 6 if 1.0 < now < 1.5 else 1
        return slow * (dear if shape else 1.0) * (fixed + by_row * rows) * draw.uniform(1.0, 1.3)

    rate = draw.choice((0.2, 0.8, 2.0)) * most / (fixed + by_row * most)
    now, arrivals = 0.0, []
    for _ in range(REQUESTS):
        now += draw.choice((0.0, 1.0)) * draw.expovariate(rate / 2)
        time = draw.choice((NEVER, draw.uniform(0.5, 30.0) * (fixed + by_row)))
        leaves = now + draw.uniform(0.0, 0.1) if draw.random() < 0.1 else NEVER
        level, rows = draw.randrange(levels), draw.choice((1, 1, 1, 2, 3, 9))
        trial = draw.random() < 0.05
        shape = draw.randrange(2)
        arrivals.append(Arrival(now, now + time, shape, level, rows, leaves, trial))
    instances, split = draw.choice((1, 1, 2)), draw.random() < 0.5
    return Watched(bounds, takes, instances, split=split), arrivals


@pytest.mark.parametrize("seed", range(100))
def test_whatever_comes_nothing_idles_in_vain_and_everybody_is_answered_once(seed: int) -> None:
    simulation, arrivals = mix(seed)
    outcome = simulation.serve(arrivals)
    ended = len(outcome.served) + len(outcome.turned_away) + simulation.dropped
    assert ended == REQUESTS
    for _, refusal in simulation.refusals:
        assert isinstance(refusal, DeadlinePassed) or refusal.retry_after > 0


def test_a_lone_request_with_time_enough_is_never_late_because_a_batch_may_wait() -> None:
    draw = random.Random(3)
    for _ in range(300):
        run, delay = draw.uniform(0.001, 0.2), draw.uniform(0.0, 0.5)
        simulation = Simulation(bounds_of(8, delay), lambda *_, run=run: run)  # type: ignore[misc]
        times = [run * draw.uniform(1.2, 8.0) for _ in range(12)]
        arrivals = [Arrival(index * 10.0, index * 10.0 + t) for index, t in enumerate(times)]
        outcome = simulation.serve(arrivals)
        assert outcome.in_time == len(arrivals)
