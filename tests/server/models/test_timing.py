"""How large batches should be, from how long runs take."""

from __future__ import annotations

import pytest
from inferd_engines.engine import EngineError
from inferd_server.models.warmup import SLOW_S, run_seconds, worthwhile_rows

from tests.fakes.engine import FakeEngine


class Clock:
    """A double that goes on by given steps."""

    def __init__(self, *steps: float) -> None:
        self._times = [sum(steps[:count]) for count in range(len(steps) + 1)]

    def __call__(self) -> float:
        return self._times.pop(0)


def rows_for(fixed: float, for_each: float, most: int = 32) -> int:
    """Of a model whose runs cost something fixed and something for each row."""
    return worthwhile_rows(lambda rows: fixed + for_each * rows, most)


@pytest.mark.parametrize(
    ("fixed", "for_each", "rows"),
    [
        (0.0, 0.045, 1),
        (0.001, 0.045, 1),
        (0.045, 0.0, 32),
        (0.020, 0.020, 16),
        (0.0, SLOW_S / 2, 32),
    ],
    ids=[
        "every row costs the same",
        "nearly the same",
        "rows are free",
        "gains that end",
        "too quick to bother",
    ],
)
def test_batches_grow_as_long_as_it_pays(fixed: float, for_each: float, rows: int) -> None:
    assert rows_for(fixed, for_each) == rows


@pytest.mark.parametrize(
    ("rates", "rows"),
    [
        ({1: 36.2, 2: 39.4, 4: 40.8, 8: 42.0, 16: 42.1}, 4),
        ({1: 1.0, 2: 1.05, 4: 100.0}, 1),
        ({1: 1.0, 2: 1.2, 4: 1.5, 8: 1.6, 16: 100.0}, 8),
        ({1: 25.0, 2: 25.6, 4: 40.0}, 1),
        ({1: 40.0, 2: 30.0, 4: 90.0}, 1),
        ({1: 10.0, 2: 14.0, 4: 13.9}, 2),
        ({1: 100.0, 2: 104.0, 4: 108.0, 8: 112.0, 16: 116.0, 32: 117.0}, 8),
    ],
    ids=[
        "ResNet-50 on two cores",
        "a small gain of a slow one",
        "gains of a slow one",
        "no gain at first",
        "a loss at first",
        "a gain once",
        "small gains",
    ],
)
def test_the_smallest_batch_that_is_nearly_the_best_is_enough(
    rates: dict[int, float], rows: int
) -> None:
    assert worthwhile_rows(lambda count: count / rates[count], 32) == rows


def test_the_limit_need_not_be_a_power_of_two() -> None:
    assert rows_for(1.0, 0.0, most=12) == 12


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_cannot_be_timed_changes_nothing(fails_at: int) -> None:
    assert worthwhile_rows(lambda rows: None if rows == fails_at else 1.0, 8) == 8


def test_the_quickest_of_a_few_runs_counts() -> None:
    clock = Clock(3.0, 0.0, 1.0, 0.0, 2.0)
    assert run_seconds(FakeEngine(), 4, clock) == pytest.approx(1.0)


def test_a_model_that_takes_no_zeros_has_no_time() -> None:
    class Choosy(FakeEngine):
        def warm(self, rows: int) -> None:
            raise EngineError("no zeros")

    assert run_seconds(Choosy(), 1, Clock(1.0, 1.0)) is None
