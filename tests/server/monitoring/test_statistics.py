"""Counters of a model version."""

from __future__ import annotations

import threading

from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.statistics import BatchTimes, Duration, Snapshot, Statistics

# Sums of these are exact.
RUN = Execution(rows=4, waited=8.0, gather=0.25, compute=0.5)
PHASES = Phases(queue=1.0, run=RUN)


def test_nothing_happened_at_first() -> None:
    assert Statistics().read() == Snapshot()


def test_an_answered_request_counts_with_its_phases() -> None:
    statistics = Statistics()
    statistics.succeeded(rows=3, total=2.0, prepare=0.125, phases=PHASES, wall=100.0)
    statistics.succeeded(rows=1, total=4.0, prepare=0.125, phases=PHASES, wall=200.0)
    assert statistics.read() == Snapshot(
        success=Duration(2, 6.0),
        queue=Duration(2, 2.0),
        gather=Duration(2, 0.75),
        compute=Duration(2, 1.0),
        encode=Duration(2, 2.25),
        rows=4,
        last=200.0,
    )


def test_the_phases_of_every_answered_request_add_up_to_its_time() -> None:
    statistics = Statistics()
    statistics.succeeded(rows=3, total=2.0, prepare=0.125, phases=PHASES, wall=100.0)
    statistics.succeeded(rows=3, total=1.75, prepare=0.0, phases=PHASES, wall=100.0)
    statistics.hit(total=8.0, wall=100.0)
    found = statistics.read()
    parts = (found.queue, found.gather, found.compute, found.encode, found.hit)
    assert found.success == Duration(3, 11.75)
    assert sum(part.seconds for part in parts) == found.success.seconds


def test_a_failed_request_counts_as_nothing_else() -> None:
    statistics = Statistics()
    statistics.failed(2.0)
    statistics.failed(1.0)
    assert statistics.read() == Snapshot(fail=Duration(2, 3.0))


def test_batches_count_by_their_size_in_order() -> None:
    statistics = Statistics()
    for run in (RUN, Execution(1, 0.0, 2.0, 4.0), RUN):
        statistics.executed(run)
    snapshot = statistics.read()
    assert snapshot.executions == 3
    assert snapshot.batches == {
        1: BatchTimes(Duration(1, 2.0), Duration(1, 4.0)),
        4: BatchTimes(Duration(2, 0.5), Duration(2, 1.0)),
    }
    assert list(snapshot.batches) == [1, 4]
    assert (snapshot.success.count, snapshot.rows) == (0, 0)


def test_a_snapshot_never_changes() -> None:
    statistics = Statistics()
    statistics.executed(RUN)
    before = statistics.read()
    statistics.executed(RUN)
    statistics.executed(Execution(9, 0.0, 0.0, 0.0))
    statistics.succeeded(1, 1.0, 1.0, PHASES, 1.0)
    statistics.failed(1.0)
    times = BatchTimes(Duration(1, 0.25), Duration(1, 0.5))
    assert before == Snapshot(executions=1, batches={4: times})


def test_threads_lose_no_count() -> None:
    statistics, together = Statistics(), threading.Barrier(4)

    def count() -> None:
        together.wait()
        for _ in range(500):
            statistics.succeeded(1, 0.5, 0.0, PHASES, 1.0)
            statistics.failed(0.5)
            statistics.executed(RUN)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = statistics.read()
    assert snapshot.success == snapshot.fail == Duration(2000, 1000.0)
    assert (snapshot.rows, snapshot.executions) == (2000, 2000)
    assert snapshot.batches[4].compute == Duration(2000, 1000.0)
