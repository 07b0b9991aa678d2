"""The judge ends windows over all processes' counts, judges each once, and tells what changed."""

from __future__ import annotations

import numpy as np
import pytest
from inferd_server.monitoring.drift.judge import DriftJudge, DriftReport, gauges_of
from inferd_server.monitoring.drift.reference import Hints, make_reference
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.windows import DriftCounts, Key, WindowBounds, add_drift
from inferd_server.processes.format import Answered, pack, unpack
from inferd_server.processes.messages import Drifted

from tests.fakes.clock import FakeClock

from .samples import table

KEY = ("m", 1, "k")


class Bench:
    """A judge of one version, whose rows come from a generator."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(2)
        self.references = References(None)
        self.reference = make_reference([table(self.rng, 1000)], Hints(), "a test")
        self.references.agree("k", self.reference)
        self.totals: dict[Key, DriftCounts] = {}
        self.clock = FakeClock()
        bounds = WindowBounds(500, 3600.0, 100)
        self.judge = DriftJudge(lambda: self.totals, self.references, bounds, 0.01, self.clock)

    def come(self, rows: int, shift: float = 0.0) -> DriftReport:
        """Let rows be counted, and return what is known then."""
        counts = self.reference.count(table(self.rng, rows, shift))
        add_drift(self.totals, {KEY: DriftCounts(rows, counts)})
        (report,) = self.judge.look()
        return report


def test_a_window_is_judged_once_and_stays_until_the_next() -> None:
    bench = Bench()
    assert bench.come(300).window is None
    report = bench.come(300)
    assert report.window is not None
    assert (report.window.rows, report.windows, report.open_rows) == (600, 1, 0)
    assert not report.window.alarm
    again = bench.come(100)
    assert (again.window, again.windows, again.open_rows) == (report.window, 1, 100)


def test_drift_is_told_when_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    bench = Bench()
    alarms = []
    for shift in (0.0, 1.0, 1.0, 0.0):
        report = bench.come(500, shift)
        assert report.window is not None
        alarms.append(report.window.alarm)
    assert alarms == [False, True, True, False]
    assert report.alarms == 2
    told = [record.message for record in caplog.records]
    assert [line for line in told if "reference" in line] == [
        "requests are not like those of the reference",
        "requests are like those of the reference again",
    ]
    assert "x[0]" in caplog.records[0].features  # type: ignore[attr-defined]


def test_gauges_tell_of_each_feature_of_the_last_window() -> None:
    bench = Bench()
    bench.come(500)
    gauges = gauges_of([bench.come(500, 1.0)])
    assert gauges["inferd_drift_windows_total", "m", 1, ""] == 2
    assert gauges["inferd_drift_alarms_total", "m", 1, ""] == 1
    assert gauges["inferd_drift_alarm", "m", 1, "x[0]"] == 1
    assert gauges["inferd_drift_ks", "m", 1, "x[0]"] == pytest.approx(0.38, abs=0.06)
    assert gauges["inferd_drift_psi", "m", 1, "x[0]"] > 0.5
    assert gauges["inferd_drift_p_value", "m", 1, "x[0]"] < 1e-9


def test_a_version_that_nobody_counts_for_is_forgotten() -> None:
    bench = Bench()
    bench.come(500)
    bench.totals.clear()
    assert bench.judge.look() == ()


def test_counts_without_a_reference_or_by_other_bins_are_passed_over() -> None:
    bench = Bench()
    bench.totals = {("m", 1, "none"): DriftCounts(900, ((900,),)), KEY: DriftCounts(9, ((9,),))}
    assert bench.judge.look() == ()


def test_reports_travel_between_processes() -> None:
    bench = Bench()
    report = bench.come(700)
    answer = unpack(pack(Answered(1, Drifted((report,)), None)))
    assert answer == Answered(1, Drifted((report,)), None)
