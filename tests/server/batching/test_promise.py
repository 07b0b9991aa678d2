"""What is learned from requests that were nearly late."""

from __future__ import annotations

import numpy as np
from inferd_server.batching.latency import LATE, MOST, START, Forecast, Promise, stretched
from inferd_server.monitoring.phases import Execution


class Learned:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def kept(self, expected: float, took: float) -> None:
        self.told.append((expected, took))


def test_an_answer_tells_how_long_it_took() -> None:
    learned = Learned()
    Promise(learned, 2.0, 100.0).answered(1.5)
    assert learned.told == [(2.0, 1.5)]


def test_who_leaves_at_the_deadline_was_let_down_and_who_leaves_long_before_was_not() -> None:
    learned = Learned()
    promise = Promise(learned, 2.0, 100.0)
    promise.ended(5.0, now=96.0)
    assert learned.told == []
    promise.ended(9.9, now=99.9)
    promise.ended(10.0, now=100.0)
    assert learned.told == [(2.0, float("inf"))] * 2


def test_forecasts_stretch_until_few_requests_take_longer() -> None:
    generator = np.random.default_rng(1)
    stretch, longer = 1.0, []
    for took in generator.lognormal(0.3, 0.2, 40_000):
        longer.append(took > stretch)
        stretch = stretched(stretch, longer=longer[-1])
    assert sum(longer[20_000:]) / 20_000 < 2 * LATE
    assert 1.0 < stretch < MOST


def test_the_stretch_keeps_within_bounds() -> None:
    stretch = START
    for _ in range(1000):
        stretch = stretched(stretch, longer=True)
    assert stretch == MOST
    for _ in range(10_000):
        stretch = stretched(stretch, longer=False)
    assert stretch == 1.0


def test_a_forecast_that_was_wrong_becomes_careful() -> None:
    forecast = Forecast(4)
    forecast.learn(Execution(4, 0.0, 0.0, 1.0), 100.0)
    first = forecast.expect(4, 4, 100.0)
    assert first is not None
    assert first.latest == first.total * START
    forecast.kept(first.total, first.total * 2)
    second = forecast.expect(4, 4, 100.0)
    assert second is not None
    assert second.total == first.total
    assert second.latest > first.latest
    assert forecast.presses(second.latest - 0.01, 4)
