"""When a request that arrives now would be answered."""

from __future__ import annotations

import pytest
from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.run_costs import RunCosts
from inferd_server.monitoring.phases import Execution

NOW = 100.0


def known(instances: int = 1, **shapes: float) -> Forecast:
    """A forecast of batches of 4 rows, where every run of a shape takes so many seconds."""
    costs = RunCosts()
    for shape, seconds in shapes.items():
        for rows in (1, 4, 1, 4):
            costs.learn(shape, rows, seconds, NOW)
    forecast = Forecast(BatchBounds(4), costs, instances)
    forecast.begin(NOW)
    return forecast


@pytest.mark.parametrize(
    ("held", "others", "part", "wait"),
    [
        ({}, 0, 1.0, 0.0),  # nothing runs
        ({"a": 1}, 0, 1.0, 2.0),  # what runs is not joined
        ({"a": 5}, 0, 1.0, 2.0),  # but what waits is
        ({"a": 8}, 0, 1.0, 4.0),
        ({"a": 8}, 0, 0.0, 2.0),  # none of them goes before it, but what runs does
        ({"b": 4}, 0, 1.0, 10.0),
        ({"a": 4, "b": 8}, 0, 1.0, 10.0 + 10.0 + 2.0),
        ({}, 8, 1.0, 4.0),  # another process sent them
        ({"a": 4}, 4, 1.0, 4.0),
    ],
)
def test_a_request_waits_for_what_runs_before_it(
    held: dict[str, int], others: int, part: float, wait: float
) -> None:
    expected = known(a=2.0, b=10.0).expect("a", 1, held, others, part, NOW)
    assert expected.wait == pytest.approx(wait, rel=0.01)
    assert expected.run == pytest.approx(2.0, rel=0.01)


def test_what_runs_has_been_at_it_since_the_last_answer() -> None:
    forecast = known(a=2.0)
    assert forecast.expect("a", 1, {"a": 4}, 0, 1.0, NOW + 1.5).wait == pytest.approx(0.5, rel=0.1)
    assert forecast.expect("a", 1, {"a": 4}, 0, 1.0, NOW + 9.0).wait == 0.0
    forecast.learn("a", Execution(4, 0.0, 0.0, 2.0), NOW + 9.0)
    assert forecast.expect("a", 1, {"a": 4}, 0, 1.0, NOW + 9.0).wait == pytest.approx(2.0, rel=0.1)


def test_nobody_waits_while_an_instance_must_be_free() -> None:
    forecast = known(instances=3, a=2.0)
    assert forecast.expect("a", 1, {"a": 2}, 0, 1.0, NOW).wait == 0.0
    assert forecast.expect("a", 1, {"a": 20}, 0, 1.0, NOW).wait > 0.0


def test_of_shapes_that_never_ran_nothing_is_expected() -> None:
    expected = known(a=2.0).expect("c", 1, {"c": 400}, 0, 1.0, NOW)
    assert (expected.wait, expected.run) == (0.0, 0.0)


def test_a_run_is_learned_once_however_many_answers_tell_of_it() -> None:
    forecast = Forecast(BatchBounds(4))
    for _ in range(3):
        forecast.learn("a", Execution(4, 0.0, 0.001, 3.0), NOW)
    assert forecast.quickest("a", 4, NOW) == 0.0
    forecast.learn("a", Execution(4, 0.0, 0.002, 3.0), NOW)
    assert forecast.quickest("a", 4, NOW) == pytest.approx(3.0, rel=0.01)
