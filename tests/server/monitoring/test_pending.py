"""Numbers that are added up together come to what they come to one by one."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.monitoring.pending import MOST, PendingNumbers, add_to_buckets
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.series import SECONDS, Series
from inferd_server.monitoring.statistics import Statistics

PHASES = Phases(0.25, Execution(1, 0.0, 0.0, 0.0))
TIMES = st.floats(0.0, 20.0) | st.sampled_from(SECONDS)


@given(st.lists(TIMES), st.lists(TIMES))
def test_values_fall_into_the_buckets_that_each_alone_would(
    first: list[float], second: list[float]
) -> None:
    counts, wanted = [0] * (len(SECONDS) + 1), [0] * (len(SECONDS) + 1)
    for values in (first, second):
        add_to_buckets(counts, SECONDS, values)
    for value in (*first, *second):
        wanted[bisect_left(SECONDS, value)] += 1
    assert counts == wanted


def test_what_was_taken_is_there_no_more() -> None:
    pending: PendingNumbers[tuple[int, float]] = PendingNumbers()
    pending.add((1, 2.0))
    pending.add((3, 4.0))
    assert pending.take() == [(1, 2.0), (3, 4.0)]
    assert pending.take() == []


def test_a_request_that_comes_and_ends_while_they_are_added_up_is_never_counted_out_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    series = Series(lambda: 0.0)
    statistics = Statistics(series)
    take = series._entered.take

    def take_and_be_overtaken() -> list[tuple[()]]:
        found = take()
        series.admitted()
        statistics.succeeded(1, 0.5, 0.0, PHASES, 1.0)
        return found

    monkeypatch.setattr(series._entered, "take", take_and_be_overtaken)
    assert [series.snapshot().in_flight for _ in range(3)] == [0, 0, 0]


def test_pending_numbers_stay_few_though_nobody_reads_them() -> None:
    series = Series(lambda: 0.0)
    statistics = Statistics(series)
    for _ in range(3 * MOST + 1):
        statistics.succeeded(1, 0.5, 0.0, PHASES, 1.0)
        statistics.executed(PHASES.run)
    assert len(series.ran.take()) == len(statistics._run.take()) == 1
