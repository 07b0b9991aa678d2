"""Batch size and delay that follow a target."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.latency_target import (
    PERIOD_S,
    RUNS,
    Chosen,
    LatencyTarget,
    SlowestHundredth,
    steer,
)
from inferd_server.monitoring.phases import Execution

BOUNDS = Chosen(32, 0.05)
TARGET = 0.1
SECONDS = st.floats(0.0, 10.0)


@given(
    st.builds(Chosen, st.integers(1, 32), st.floats(0.0, 0.05)),
    st.builds(SlowestHundredth, SECONDS, SECONDS),
    st.floats(0.001, 5.0),
)
def test_what_is_chosen_stays_within_the_bounds(
    now: Chosen, measured: SlowestHundredth, target: float
) -> None:
    chosen = steer(now, measured, target, BOUNDS)
    assert 1 <= chosen.rows <= BOUNDS.rows
    assert 0.0 <= chosen.delay <= BOUNDS.delay
    if measured.total > target:
        assert chosen.delay < now.delay or now.delay == 0.0


@pytest.mark.parametrize(
    ("now", "measured", "chosen"),
    [
        (Chosen(8, 0.04), SlowestHundredth(0.2, 0.01), Chosen(8, 0.02)),  # company is too dear
        (Chosen(8, 0.0), SlowestHundredth(0.01, 0.2), Chosen(4, 0.0)),  # the run takes long
        (Chosen(8, 0.0), SlowestHundredth(0.2, 0.01), Chosen(16, 0.0)),  # the queue does
        (Chosen(1, 0.0), SlowestHundredth(0.0, 0.2), Chosen(1, 0.0)),
        (Chosen(8, 0.0), SlowestHundredth(0.04, 0.04), Chosen(8, 0.0)),  # near the target
    ],
)
def test_what_is_too_slow_changes_what_causes_it(
    now: Chosen, measured: SlowestHundredth, chosen: Chosen
) -> None:
    assert steer(now, measured, TARGET, BOUNDS) == chosen


def test_room_is_used_for_company() -> None:
    chosen = Chosen(4, 0.0)
    for _ in range(20):
        chosen = steer(chosen, SlowestHundredth(chosen.delay, 0.01), TARGET, BOUNDS)
    assert chosen.rows == 32
    assert chosen.delay == pytest.approx(0.05)


class Model:
    """Requests that arrive evenly at a model whose runs take as long as their rows say."""

    def __init__(self, rate: float, fixed: float, per_row: float) -> None:
        self.rate = rate
        self.fixed = fixed
        self.per_row = per_row
        self.now = 0.0
        self.served = 0

    def run(self, chosen: Chosen) -> Execution:
        """Run the next batch."""
        oldest = self.served / self.rate
        self.now = max(self.now, oldest + chosen.delay)
        rows = max(1, min(chosen.rows, int(self.now * self.rate) - self.served + 1))
        seconds = self.fixed + self.per_row * rows
        queued = self.now - oldest
        self.now += seconds
        self.served += rows
        return Execution(rows, 0.0, 0.0, seconds, queued=queued)


@pytest.mark.parametrize(
    ("rate", "fixed", "per_row"),
    [(100.0, 0.001, 0.004), (400.0, 0.02, 0.0005), (20.0, 0.001, 0.03)],
)
def test_a_model_that_can_meet_its_target_comes_to_do_so(
    rate: float, fixed: float, per_row: float
) -> None:
    model = Model(rate, fixed, per_row)
    steering = LatencyTarget(TARGET, Chosen(32, 0.0), BOUNDS)
    chosen = steering.chosen
    late = []
    while model.now < 120.0:
        run = model.run(chosen)
        if model.now > 60.0:
            late.append(run.queued + run.compute > TARGET)
        chosen = steering.observe(run, model.now) or chosen
    assert sum(late) <= 0.02 * len(late)


def test_nothing_changes_before_enough_was_seen() -> None:
    steering = LatencyTarget(TARGET, BOUNDS, BOUNDS)
    slow = Execution(1, 0.0, 0.0, 1.0, queued=1.0)
    assert all(steering.observe(slow, PERIOD_S * 10) is None for _ in range(RUNS - 1))
    assert steering.observe(slow, PERIOD_S * 10) == replace(BOUNDS, delay=BOUNDS.delay / 2)
    assert all(steering.observe(slow, PERIOD_S * 10.5) is None for _ in range(RUNS))
