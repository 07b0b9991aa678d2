"""Who is refused on arrival, and for how long: simulated with the scheduler's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from inferd_server.batching.batch_size import NEVER
from inferd_server.errors import DeadlinePassed, WouldBeLate

from benchmarks.scheduling.loads import Arrival
from benchmarks.scheduling.simulation import Simulation, Takes, bounds_of

FORGOTTEN_S = 2.0
"""Seconds after which nobody is refused any more for what is over."""


@pytest.fixture(params=[False, True], ids=["one process", "split"])
def split(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def every(seconds: float, first: float, last: float, time: float, shape: int = 0) -> list[Arrival]:
    """Requests that come evenly, each with so many seconds."""
    count = int((last - first) / seconds)
    moments = [first + index * seconds for index in range(count)]
    return [Arrival(at, at + time, shape) for at in moments]


def without_deadline(*arrivals: Arrival) -> list[Arrival]:
    return [replace(arrival, deadline=NEVER) for arrival in arrivals]


def serve(simulation: Simulation, *arrivals: Sequence[Arrival]) -> Simulation:
    simulation.serve(sorted((a for some in arrivals for a in some), key=lambda a: a.at))
    for _, refusal in simulation.refusals:
        # Never a pushback of nothing, and none where no wait would help.
        assert isinstance(refusal, DeadlinePassed) == (refusal.retry_after is None)
        assert refusal.retry_after is None or refusal.retry_after > 0
    return simulation


def refused(simulation: Simulation, after: float = -NEVER) -> int:
    return sum(at >= after for at in simulation.outcome.turned_away)


def slow_until(end: float, slow: float, quick: float) -> Takes:
    """What runs take that begin before a time, and after it."""
    return lambda _shape, _rows, now: slow if now < end else quick


def quiet_engine(seconds: float) -> Takes:
    return lambda _shape, _rows, _now: seconds


@pytest.mark.parametrize("most", [1, 8, 64])
def test_one_slow_first_run_refuses_nobody_for_long(most: int, split: bool) -> None:
    simulation = Simulation(bounds_of(most), slow_until(0.001, 3.0, 0.01), split=split)
    serve(simulation, without_deadline(Arrival(0.0, 0.0)), every(0.1, 3.2, 60.0, 1.0))
    assert refused(simulation) == 0
    assert not simulation.outcome.late


@pytest.mark.parametrize("shape", [0, 1])
def test_slow_requests_of_one_caller_refuse_others_no_longer_than_they_are_in_the_way(
    shape: int, split: bool
) -> None:
    slow = without_deadline(*every(0.01, 0.0, 0.08, 1.0, shape))

    def takes(of: int, _rows: int, now: float) -> float:
        return 1.0 if of == shape and now < 8.0 else 0.005

    simulation = Simulation(bounds_of(1), takes, split=split)
    serve(simulation, slow, every(0.1, 0.5, 40.0, 0.5))
    assert refused(simulation, 8.1 + FORGOTTEN_S) == 0
    assert simulation.outcome.in_time - len(slow) >= 300 - 10


def test_a_cheap_shape_is_refused_only_while_a_dear_one_is_in_its_way(split: bool) -> None:
    simulation = Simulation(
        bounds_of(8), lambda shape, _rows, _now: 0.3 if shape else 0.001, split=split
    )
    cheap, dear = every(0.02, 0.01, 60.0, 0.15), every(1.0, 0.0, 60.0, 2.0, 1)
    serve(simulation, cheap, dear)
    # But for what met the very first dear run.
    assert len(simulation.outcome.late) <= 1
    # A fifth of them comes while a dear run has more than their time to go.
    assert simulation.outcome.in_time >= 0.8 * (len(cheap) + len(dear))
    refusals = [arrival for arrival, _ in simulation.refusals]
    assert all(arrival.shape == 0 and arrival.at % 1.0 < 0.3 for arrival in refusals)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("runs", [1.2, 1.4, 2.0])
def test_an_idle_engine_serves_whoever_its_runs_are_quick_enough_for(
    runs: float, noise: float, split: bool
) -> None:
    def takes(_shape: int, _rows: int, now: float) -> float:
        return 0.1 * (1 + noise * (int(now * 7) % 3) / 2)

    simulation = Simulation(bounds_of(8), takes, split=split)
    callers = every(0.3, 0.0, 60.0, runs * 0.1)
    assert serve(simulation, callers).outcome.in_time == len(callers)


def test_after_slow_runs_an_idle_engine_serves_again_within_two_seconds(split: bool) -> None:
    simulation = Simulation(bounds_of(8), slow_until(3.0, 0.5, 0.1), split=split)
    serve(simulation, every(0.2, 0.0, 60.0, 0.14))
    assert refused(simulation, 3.0 + FORGOTTEN_S) == 0
    assert simulation.outcome.in_time >= 0.98 * 5 * (60 - 3 - FORGOTTEN_S)


def test_only_what_runs_before_a_request_counts_against_it(split: bool) -> None:
    simulation = Simulation(bounds_of(1, levels=3), quiet_engine(0.02), split=split)
    low = [Arrival(0.0, NEVER, level=2) for _ in range(200)]
    high = [replace(arrival, level=0) for arrival in every(0.1, 0.5, 1.4, 0.2)]
    middle = [replace(arrival, level=1) for arrival in every(0.1, 0.53, 1.4, 0.2)]
    serve(simulation, low, high, middle)
    assert refused(simulation) == 0
    assert not simulation.outcome.late
    same = [replace(arrival, level=2) for arrival in high]
    assert refused(serve(Simulation(bounds_of(1, levels=3), quiet_engine(0.02)), low, same)) > 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_deadline_that_the_run_alone_exceeds_is_too_short_whatever_waits(
    busy: bool, split: bool
) -> None:
    simulation = Simulation(bounds_of(1), quiet_engine(0.3), split=split)
    others = [] if not busy else without_deadline(*every(0.01, 0.9, 1.0, 1.0))
    known = without_deadline(*every(0.3, 0.0, 0.9, 1.0))
    serve(simulation, known, others, [Arrival(1.1, 1.3)])
    ((_, refusal),) = simulation.refusals
    assert isinstance(refusal, DeadlinePassed)
    assert refusal.reason == "DEADLINE_TOO_SHORT"


def test_a_request_larger_than_the_preferred_batch_is_judged_by_the_run_that_it_makes(
    split: bool,
) -> None:
    simulation = Simulation(bounds_of(8), lambda _shape, rows, _now: 0.005 * rows, split=split)
    large = [Arrival(at, NEVER, rows=64) for at in (0.0, 0.4)]
    small = without_deadline(*every(0.005, 0.72, 0.8, 1.0))
    serve(simulation, large, small, [Arrival(1.2, 1.4, rows=64)])
    ((_, refusal),) = simulation.refusals
    assert isinstance(refusal, DeadlinePassed)
    assert refusal.reason == "DEADLINE_TOO_SHORT"
    assert not simulation.outcome.late


def burst(count: int, at: float, time: float) -> list[Arrival]:
    return [Arrival(at, at + time) for _ in range(count)]


@pytest.mark.parametrize("most_wait", [0.0, 0.41])
def test_of_a_burst_after_quiet_the_first_is_tried_and_others_judged_by_what_was_known_last(
    most_wait: float, split: bool
) -> None:
    simulation = Simulation(bounds_of(1, most_wait=most_wait), quiet_engine(0.2), split=split)
    known = without_deadline(*every(0.3, 0.0, 1.2, 1.0))
    serve(simulation, known, burst(12, 60.0, NEVER if most_wait else 0.61))
    assert refused(simulation) == 9
    assert max(simulation.outcome.took) < 0.61


def test_bursts_that_fit_are_let_in(split: bool) -> None:
    simulation = Simulation(bounds_of(4), quiet_engine(0.2), split=split)
    serve(simulation, *(burst(12, 2.0 * index, 0.85) for index in range(20)))
    assert refused(simulation, 2.0) == 0
    assert simulation.outcome.in_time >= 19 * 12


@pytest.mark.parametrize(("begin", "end", "times"), [(2.0, 2.5, 5), (2.0, 5.0, 3), (1.0, 9.0, 50)])
def test_what_runs_cost_for_a_while_refuses_nobody_two_seconds_after_it(
    begin: float, end: float, times: int, split: bool
) -> None:
    def takes(_shape: int, _rows: int, now: float) -> float:
        return 0.006 * (times if begin <= now < end else 1)

    simulation = Simulation(bounds_of(16), takes, split=split)
    serve(simulation, every(0.02, 0.0, 20.0, 0.03))
    over = end + times * 0.006
    assert refused(simulation, over + FORGOTTEN_S) == 0
    after = [at for at in simulation.outcome.served if at > over + FORGOTTEN_S]
    assert len(after) >= (20.0 - over - FORGOTTEN_S) / 0.02 - 1


def test_too_much_is_refused_with_the_time_to_wait(split: bool) -> None:
    simulation = Simulation(bounds_of(1), quiet_engine(0.1), split=split)
    serve(simulation, every(0.03, 0.0, 20.0, 0.5))
    found = [refusal for _, refusal in simulation.refusals]
    assert found
    assert all(isinstance(refusal, WouldBeLate) for refusal in found)
    assert all(0.3 < refusal.retry_after < 0.6 for refusal in found)


def test_who_has_no_time_for_any_run_is_refused_though_nothing_is_known(split: bool) -> None:
    simulation = Simulation(bounds_of(8), quiet_engine(0.01), split=split)
    serve(simulation, [Arrival(0.0, 1e-6), Arrival(1.0, 1.5)])
    ((arrival, refusal),) = simulation.refusals
    assert (arrival.at, refusal.reason) == (0.0, "DEADLINE_TOO_SHORT")
