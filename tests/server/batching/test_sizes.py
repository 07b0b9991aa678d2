"""Which batches fit the sizes of an engine."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.batching.batch_size import padding, worth_running
from inferd_server.batching.decision import BatchBounds, next_batch
from inferd_server.batching.run_costs import RunCosts

from tests.server.batching.requests import Request

SIZES = (1, 2, 4, 8, 16)


@pytest.mark.parametrize(("rows", "wasted"), [(1, 0), (3, 1), (9, 7), (16, 0), (17, 0)])
def test_a_batch_is_padded_to_the_next_size(rows: int, wasted: int) -> None:
    assert padding(rows, SIZES) == wasted
    assert padding(rows, ()) == 0


@pytest.mark.parametrize(
    ("requests", "run"),
    [
        ([1] * 9, 8),  # one waits, where seven rows would be padded
        ([1] * 13, 13),  # five would wait, where three rows are padded
        ([1] * 8, 8),
        ([6, 3], 1),
        ([2, 7], 2),  # as many would wait as are padded
        ([8, 1], 1),
        ([9], 1),  # one request cannot be divided
        ([1] * 20, 20),  # beyond all sizes: the engine divides it
    ],
)
def test_rows_wait_where_more_would_be_padded(requests: list[int], run: int) -> None:
    assert worth_running(list(accumulate(requests)), SIZES) == run


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_something_runs_and_no_more_is_wasted_than_without_the_choice(requests: list[int]) -> None:
    rows = list(accumulate(requests))
    count = worth_running(rows, SIZES)
    assert 1 <= count <= len(rows)
    left = rows[-1] - rows[count - 1]
    assert left == 0 or left < padding(rows[-1], SIZES)


def test_requests_that_are_left_behind_lead_the_next_batch() -> None:
    waiting = [Request(rows=1, key="a", arrived=float(place)) for place in range(9)]
    limits = BatchBounds(16, 0.0, SIZES)
    first = next_batch(waiting, 20.0, limits, RunCosts())
    assert list(first.run) == waiting[:8]
    second = next_batch(waiting[8:], 20.0, limits, RunCosts())
    assert list(second.run) == waiting[8:]
