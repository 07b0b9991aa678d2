"""The counters of all processes are those of one server, those of dead ones among them."""

from __future__ import annotations

import pytest
from inferd_engines.devices import Device
from inferd_server.monitoring.drift.windows import DriftCounts
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge, without_gauges
from inferd_server.monitoring.statistics import Duration, Statistics
from inferd_server.processes import totals
from inferd_server.processes.messages import Measured, ModelRecord
from inferd_server.processes.totals import Totals, states_of

from tests.fakes.child import FakeChild

M = ("m", 1)


class Process:
    """A process that counts, and tells its counters when it is asked."""

    def __init__(self, role: str) -> None:
        self.metrics = Metrics()
        self.statistics = Statistics()
        self.fake = FakeChild(role, 0)
        self.fake.channel.reply = lambda _: Measured(
            self.metrics.snapshot(), {M: self.statistics.read()}
        )

    def answered(self, count: int) -> None:
        for _ in range(count):
            self.metrics.of("m", 1).admitted()
            self.metrics.of("m", 1).answered("OK", 0.1)
            self.statistics.failed(0.5)


def total_of(*processes: Process) -> Totals:
    own = MetricsSnapshot(ready=True)
    return Totals(lambda: [process.fake.child for process in processes], lambda: own)


def test_what_caches_did_adds_up_over_processes() -> None:
    first, second = Process("front"), Process("front")
    for process in (first, second):
        process.metrics.of("m", 1).cached("hit")
        process.statistics.hit(total=2.0, wall=9.0)
    second.metrics.of("m", 1).cached("miss")
    second.statistics.missed(0.25)
    made = total_of(first, second)
    assert made.metrics().series["m", 1].cached == {"hit": 2, "miss": 1}
    counted = made.measured().statistics[M]
    assert (counted.hit, counted.miss) == (Duration(2, 4.0), Duration(1, 0.25))
    assert counted.success == Duration(2, 4.0)
    assert counted.last == 9.0


def ok(found: MetricsSnapshot) -> int:
    return found.series["m", 1].codes["OK"].value


def test_counters_of_all_processes_add_up() -> None:
    first, second = Process("front"), Process("front")
    first.answered(2)
    second.answered(3)
    made = total_of(first, second)
    assert ok(made.metrics()) == 5
    assert made.metrics().ready is True
    assert made.measured().statistics[M].fail.count == 5
    assert made.measured().statistics[M].fail.seconds == pytest.approx(2.5)


def test_what_a_dead_process_counted_is_kept_and_what_it_held_is_not() -> None:
    first, second = Process("front"), Process("front")
    first.answered(2)
    first.metrics.of("m", 1).admitted()
    second.answered(1)
    living = [first, second]
    made = Totals(lambda: [process.fake.child for process in living], MetricsSnapshot)
    assert made.metrics().series["m", 1].in_flight == 1
    living.remove(first)
    made.ended(first.fake.child)
    assert ok(made.metrics()) == 3
    assert made.metrics().series["m", 1].in_flight == 0


def test_a_process_that_does_not_answer_counts_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "PATIENCE_S", 0.01)
    process = Process("front")
    process.answered(4)
    made = total_of(process)
    assert ok(made.metrics()) == 4
    process.answered(1)
    process.fake.channel.reply = None
    assert ok(made.metrics()) == 4


def test_a_stopped_process_is_waited_for_once_and_counts_again_once_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(totals, "PATIENCE_S", 0.01)
    stopped, other = Process("front"), Process("front")
    stopped.answered(1)
    made = total_of(stopped, other)
    assert ok(made.metrics()) == 1
    stopped.fake.is_asked()
    stopped.fake.channel.reply = None
    made.metrics()
    # From now on nobody waits: only who owes nothing is asked.
    monkeypatch.setattr(totals, "PATIENCE_S", 3600.0)
    for count in range(1, 4):
        other.answered(1)
        assert ok(made.metrics()) == 1 + count
    _, owed = stopped.fake.is_asked()
    assert stopped.fake.channel.asked.empty()
    stopped.answered(5)
    owed.set_result(Measured(stopped.metrics.snapshot(), {}))
    stopped.fake.channel.reply = lambda _: Measured(stopped.metrics.snapshot(), {})
    assert ok(made.metrics()) == 6 + 3


def test_a_process_that_was_never_heard_of_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "PATIENCE_S", 0.01)
    process = Process("front")
    process.fake.channel.reply = None
    made = total_of(process)
    assert made.metrics().series == {}
    made.ended(process.fake.child)
    assert made.metrics().series == {}


def test_what_a_dead_replica_answered_counts_until_the_model_is_loaded_anew() -> None:
    first, second = Process("replica"), Process("replica")
    first.answered(2)
    second.answered(3)
    living = [first, second]
    made = Totals(lambda: [process.fake.child for process in living], MetricsSnapshot)
    assert made.measured().statistics[M].fail.count == 5
    living.remove(first)
    made.ended(first.fake.child)
    assert made.measured().statistics[M].fail.count == 5
    made.forget("other")
    assert made.measured().statistics[M].fail.count == 5
    made.forget("m")
    assert made.measured().statistics[M].fail.count == 3


def test_what_a_dead_worker_ran_is_no_statistics_of_the_next_one() -> None:
    worker = Process("worker")
    worker.answered(2)
    living = [worker]
    made = Totals(lambda: [process.fake.child for process in living], MetricsSnapshot)
    made.measured()
    living.clear()
    made.ended(worker.fake.child)
    assert made.measured().statistics == {}


def test_what_a_gpu_did_is_kept_when_its_worker_dies_and_how_it_is_is_not() -> None:
    device = "GPU-aa"
    ran = {("inferd_device_rows_total", device): 7.0, ("inferd_device_models", device): 2.0}
    found = without_gauges(MetricsSnapshot(devices=ran))
    assert found.devices == {("inferd_device_rows_total", device): 7.0}
    assert merge([found, found]).devices == {("inferd_device_rows_total", device): 14.0}


def test_gpus_are_told_of_whether_or_not_they_have_a_worker() -> None:
    records = [ModelRecord("m", 1, "READY", "", None, {0: 1, 1: 4})]
    devices = [Device("GPU-aa"), Device("GPU-bb")]
    found = states_of(devices, records, {1}, {0: 3})
    assert found == {
        ("inferd_device_up", "GPU-aa"): 0.0,
        ("inferd_device_models", "GPU-aa"): 1,
        ("inferd_device_restarts_total", "GPU-aa"): 3,
        ("inferd_device_up", "GPU-bb"): 1.0,
        ("inferd_device_models", "GPU-bb"): 1,
        ("inferd_device_restarts_total", "GPU-bb"): 0,
    }


def test_rows_compared_with_references_add_up_and_outlive_their_process() -> None:
    first, second = Process("front"), Process("front")
    counts = DriftCounts(3, ((1, 2),))
    for process in (first, second):
        process.metrics.watch_drift(lambda: {("m", 1, "k"): counts})
    children = [first.fake.child, second.fake.child]
    made = Totals(lambda: children, MetricsSnapshot)
    both = {("m", 1, "k"): DriftCounts(6, ((2, 4),))}
    assert made.metrics().drift == both
    made.ended(children.pop())
    assert made.metrics().drift == both
    made.forget("m")
    assert made.metrics().drift == {("m", 1, "k"): counts}
