"""A bound on log lines that others can cause."""

from __future__ import annotations

from inferd_server.monitoring.log_limit import LINES, WHILE_S, LogLimit

from tests.fakes.clock import FakeClock


def test_some_lines_pass_and_the_others_are_counted_into_the_next_one() -> None:
    clock = FakeClock()
    limit = LogLimit(clock)
    assert [limit.left_out("a") for _ in range(LINES)] == [0] * LINES
    assert [limit.left_out("a") for _ in range(7)] == [None] * 7
    clock.advance(WHILE_S)
    assert [limit.left_out("a") for _ in range(2)] == [7, 0]


def test_each_kind_has_lines_of_its_own() -> None:
    limit = LogLimit(FakeClock())
    for _ in range(100):
        limit.left_out("a")
    assert limit.left_out("b") == 0
