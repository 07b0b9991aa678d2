"""Windows end by rows or by time, each row is in one, and counts of processes add up."""

from __future__ import annotations

from inferd_server.monitoring.drift.windows import (
    DriftCounts,
    OpenWindow,
    WindowBounds,
    add_drift,
    advance,
)

BOUNDS = WindowBounds(rows=500, seconds=60.0, least=100)
KEY = ("m", 1, "key")


def counts(*bins: int) -> DriftCounts:
    return DriftCounts(sum(bins), (bins,))


BEGUN = OpenWindow(counts(0, 0), 0.0)


def test_a_window_ends_with_enough_rows_and_the_next_begins_where_it_ended() -> None:
    window, ended = advance(BEGUN, counts(300, 199), 1.0, BOUNDS)
    assert (window, ended) == (BEGUN, None)
    window, ended = advance(window, counts(300, 220), 2.0, BOUNDS)
    assert ended == counts(300, 220)
    window, ended = advance(window, counts(300, 700), 3.0, BOUNDS)
    assert ended is None
    window, ended = advance(window, counts(500, 700), 4.0, BOUNDS)
    assert ended == counts(200, 480)


def test_a_window_of_few_rows_ends_by_time_once_it_has_the_least() -> None:
    window, ended = advance(BEGUN, counts(99, 0), 1e6, BOUNDS)
    assert (window, ended) == (BEGUN, None)
    assert advance(BEGUN, counts(99, 1), 59.9, BOUNDS)[1] is None
    assert advance(BEGUN, counts(99, 1), 60.0, BOUNDS)[1] == counts(99, 1)


def test_counts_that_are_lost_begin_a_new_window_and_make_none_negative() -> None:
    window = OpenWindow(counts(1000, 1000), 0.0)
    window, ended = advance(window, counts(900, 1700), 5.0, BOUNDS)
    assert ended is None
    assert window == OpenWindow(counts(900, 1700), 5.0)


def test_counts_of_processes_add_up_and_those_by_other_bins_are_left_out() -> None:
    total: dict[tuple[str, int, str], DriftCounts] = {}
    add_drift(total, {KEY: counts(1, 2)})
    add_drift(total, {KEY: counts(10, 20), ("other", 1, "k"): counts(5)})
    add_drift(total, {KEY: counts(1, 2, 3)})
    assert total == {KEY: counts(11, 22), ("other", 1, "k"): counts(5)}
