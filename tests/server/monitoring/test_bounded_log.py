"""A log of what callers can make happen is short, and says what it left out."""

from __future__ import annotations

import logging

import pytest
from inferd_server.monitoring.bounded_log import LINES, PERIOD_S, BoundedLog

from tests.fakes.clock import FakeClock


def test_many_lines_of_one_kind_become_a_few_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    told = BoundedLog(logging.getLogger("inferd_server.tests"), clock)
    for number in range(LINES + 7):
        told("a", logging.WARNING, "failed", {"number": number})
    told("b", logging.WARNING, "failed", {"number": 0})
    assert len(caplog.records) == LINES + 1
    clock.advance(PERIOD_S)
    told("a", logging.WARNING, "failed", {"number": 99})
    assert vars(caplog.records[-1])["left_out"] == 7
    told("a", logging.WARNING, "failed", {"number": 100})
    assert "left_out" not in vars(caplog.records[-1])
