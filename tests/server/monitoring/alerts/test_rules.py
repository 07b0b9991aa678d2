"""Every rule fires and ends by what the server counts, here and in Prometheus."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from inferd_server.monitoring.accuracy import Labelled, LabelWindow
from inferd_server.monitoring.alerts.prometheus import rule_file
from inferd_server.monitoring.alerts.rules import LATELY, LONGER, rules_of
from inferd_server.monitoring.alerts.watch import AlertWatch
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.series import Series
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge
from inferd_server.settings.alerts import AlertSettings

from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[4]
RULES = ROOT / "helm/inferd/files/alerts.yaml"
PROMTOOL_TESTS = Path(__file__).parent / "promtool.yaml"
SETTINGS = AlertSettings()
MINUTE = 60.0


class Bench:
    """A watch over metrics that a test fills, at its own times."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.metrics = Metrics(wall=self.clock)
        self.alarms: dict[tuple[str, str, int, str], float] = {}
        self.restarts: dict[str, int] = {}
        self.waiting = 0.0
        self.metrics.watch_models(lambda: {("inferd_waiting_requests", "m", 1): self.waiting})
        collector = SnapshotCollector(self.snapshot, self.clock)
        self.metrics.watch_drifted(lambda: self.alarms)
        self.watch = AlertWatch(rules_of(SETTINGS), [], collector.collect, 15.0, self.clock)

    @property
    def series(self) -> Series:
        return self.metrics.of("m", 1)

    def snapshot(self) -> MetricsSnapshot:
        return merge([self.metrics.snapshot(), MetricsSnapshot(restarts=dict(self.restarts))])

    def after(self, seconds: float, act: Callable[[], None] = lambda: None) -> list[str]:
        """Look every 15 s for so long; return what began (+) and ended (-)."""
        found = []
        for _ in range(int(seconds / 15)):
            act()
            found += [
                f"{'-' if event.resolved else '+'}{event.key[0]}" for event in self.watch.look()
            ]
            self.clock.advance(15.0)
        return found


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.after(15)
    return made


def test_nothing_fires_where_all_is_well(bench: Bench) -> None:
    def serve() -> None:
        for _ in range(100):
            bench.series.admitted()
            bench.series.answered("OK", 0.01)

    window = bench.metrics.accuracy_of("m", 1, LabelWindow(3600, 1000))
    window.add([Labelled("a", "a", True, 0.9)] * 100, bench.clock())
    assert bench.after(10 * MINUTE, serve) == []


def test_accuracy_fires_once_even_the_upper_end_is_low(bench: Bench) -> None:
    window = bench.metrics.accuracy_of("m", 1, LabelWindow(3600, 200))
    window.add([Labelled("a", "b", False, 0.9)] * 3, bench.clock())
    window.add([Labelled("a", "a", True, 0.9)] * 7, bench.clock())
    # 7 of 10 may well be 0.8 and more.
    assert bench.after(5 * MINUTE) == []
    window.add([Labelled("a", "b", False, 0.9)] * 60, bench.clock())
    assert bench.after(5 * MINUTE) == ["+InferdAccuracyLow"]
    window.add([Labelled("a", "a", True, 0.9)] * 400, bench.clock())
    assert bench.after(5 * MINUTE) == ["-InferdAccuracyLow"]


def test_errors_fire_by_their_share_of_a_models_answers(bench: Bench) -> None:
    def answer(code: str) -> None:
        for _ in range(9):
            bench.series.admitted()
            bench.series.answered("OK", 0.01)
        bench.series.admitted()
        bench.series.answered(code, 0.01)

    # A caller's own fault is none of the server's.
    assert bench.after(5 * MINUTE, lambda: answer("INVALID_ARGUMENT")) == []
    assert bench.after(5 * MINUTE, lambda: answer("INTERNAL")) == ["+InferdErrors"]
    assert bench.after(LATELY + 2 * MINUTE, lambda: answer("NOT_FOUND")) == ["-InferdErrors"]


def test_slow_answers_fire_by_their_99th_percentile(bench: Bench) -> None:
    def answer(slow: float) -> None:
        for seconds in (slow, *[0.01] * 20):
            bench.series.admitted()
            bench.series.answered("OK", seconds)

    assert bench.after(5 * MINUTE, lambda: answer(2.0)) == ["+InferdSlow"]
    assert bench.after(LATELY + 2 * MINUTE, lambda: answer(0.02)) == ["-InferdSlow"]


def test_an_engine_that_stands_in_fires_and_one_that_is_built_does_not(bench: Bench) -> None:
    bench.metrics.loaded("m", 1, "onnxruntime", "BUILDING")
    assert bench.after(5 * MINUTE) == []
    bench.metrics.loaded("m", 1, "onnxruntime", "FALLBACK")
    assert bench.after(5 * MINUTE) == ["+InferdFallback"]
    bench.metrics.unloaded("m", 1, "onnxruntime", "FALLBACK")
    assert bench.after(5 * MINUTE) == ["-InferdFallback"]


def test_restarts_fire_where_there_are_many_in_ten_minutes(bench: Bench) -> None:
    bench.restarts["worker"] = 2
    assert bench.after(MINUTE) == []
    bench.restarts["worker"] = 3
    assert bench.after(MINUTE) == ["+InferdRestarts"]
    assert bench.after(LONGER + 2 * MINUTE) == ["-InferdRestarts"]


def test_a_queue_fires_once_it_is_long_for_a_while(bench: Bench) -> None:
    bench.waiting = SETTINGS.alert_queue_above + 1
    assert bench.after(MINUTE / 2) == []
    bench.waiting = 0
    assert bench.after(MINUTE) == []
    bench.waiting = SETTINGS.alert_queue_above + 1
    assert bench.after(2 * MINUTE) == ["+InferdQueue"]
    bench.waiting = 0
    assert bench.after(2 * MINUTE) == ["-InferdQueue"]


def test_drift_fires_by_the_alarm_of_a_feature(bench: Bench) -> None:
    bench.alarms = {("inferd_drift_alarm", "m", 1, "brightness"): 1.0}
    assert bench.after(MINUTE) == ["+InferdDrift"]
    bench.alarms = {("inferd_drift_alarm", "m", 1, "brightness"): 0.0}
    assert bench.after(2 * MINUTE) == ["-InferdDrift"]


def test_the_rules_of_the_chart_are_those_of_the_table() -> None:
    assert RULES.read_text() == rule_file(rules_of(SETTINGS))


def test_promtool_finds_that_each_rule_fires_and_ends() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("not here: promtool (the Debian package prometheus)")
    tested = {
        alert["alertname"]
        for test in yaml.safe_load(PROMTOOL_TESTS.read_text())["tests"]
        for alert in test["alert_rule_test"]
        if alert.get("exp_alerts")
    }
    assert tested == {rule.name for rule in rules_of(SETTINGS)}
    command = [promtool, "test", "rules", str(PROMTOOL_TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
