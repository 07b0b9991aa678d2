from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_client.bench import report
from inferd_client.bench.plan import Plan, Schedule, split
from inferd_client.bench.samples import Samples, distribution, merge, summarise

PLAN = Plan("127.0.0.1:1", b"", concurrency=2, duration=1.0)


def test_closed_loop_sends_now_until_the_time_is_up() -> None:
    schedule = Schedule(PLAN, start=100.0)
    assert [schedule.take(now) for now in (100.0, 100.5, 101.0)] == [100.0, 100.5, None]
    assert schedule.unsent() == 0


def test_open_loop_keeps_its_pace_however_late_it_is_asked() -> None:
    schedule = Schedule(replace(PLAN, rate=4.0), start=100.0)
    assert [schedule.take(now) for now in (100.0, 100.0, 100.9)] == [100.0, 100.25, 100.5]
    assert schedule.take(101.0) is None
    assert schedule.unsent() == 1


def test_requests_bound_either_loop() -> None:
    assert replace(PLAN, requests=3).limit == 3
    assert replace(PLAN, requests=3, rate=2.0).limit == 2
    assert PLAN.limit == math.inf
    schedule = Schedule(replace(PLAN, requests=1), start=0.0)
    assert [schedule.take(0.0), schedule.take(0.0)] == [0.0, None]


@given(st.integers(1, 100), st.integers(1, 1000), st.integers(1, 20))
def test_shares_add_up_to_the_whole(concurrency: int, requests: int, processes: int) -> None:
    plan = replace(PLAN, concurrency=concurrency, requests=requests, rate=5000.0)
    if processes > min(concurrency, requests):
        with pytest.raises(ValueError, match="cannot be shared"):
            split(plan, processes)
        return
    parts = split(plan, processes)
    assert sum(part.concurrency for part in parts) == concurrency
    assert sum(part.requests or 0 for part in parts) == requests
    assert sum(part.rate or 0 for part in parts) == pytest.approx(5000.0)


def test_percentiles_are_values_that_were_measured() -> None:
    shown = distribution(np.arange(1.0, 1001.0))
    assert shown == {
        "mean": 500.5,
        "min": 1.0,
        "p50": 500.0,
        "p90": 900.0,
        "p99": 990.0,
        "p99.9": 999.0,
        "max": 1000.0,
    }


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_rise_from_min_to_max(values: list[float]) -> None:
    shown = distribution(np.array(values))
    ranks = [shown[name] for name in ("min", "p50", "p90", "p99", "p99.9", "max")]
    assert ranks == sorted(ranks)
    assert set(ranks) <= set(values)


def test_rates_count_successes_only() -> None:
    samples = Samples(started=10.0, ended=12.0, cpu=1.0)
    for code, latency in (("OK", 0.001), ("OK", 0.003), ("UNAVAILABLE", 9.0)):
        samples.add(code, latency)
    summary = summarise(samples, rows=4)
    assert (summary.requests, summary.succeeded) == (3, 2)
    assert summary.errors == {"UNAVAILABLE": 1}
    assert (summary.requests_per_s, summary.rows_per_s) == (1.0, 4.0)
    assert summary.latency_ms["max"] == pytest.approx(3.0)
    assert summary.client_cores == 0.5


def test_run_without_success_has_no_latency() -> None:
    summary = summarise(Samples(started=0.0, ended=1.0, codes=Counter(INTERNAL=1)), rows=1)
    assert summary.latency_ms == {}
    assert "nothing succeeded" in report.as_text(report.Setting("m", PLAN, 1, 1), summary)


def test_processes_are_joined_over_the_time_of_all() -> None:
    parts = [
        Samples(1.0, 3.0, 0.5, 1, None, [0.1], Counter(OK=1)),
        Samples(2.0, 4.0, 0.5, 2, None, [0.2], Counter(OK=1, INTERNAL=1)),
    ]
    assert merge(parts) == Samples(1.0, 4.0, 1.0, 3, None, [0.1, 0.2], Counter(OK=2, INTERNAL=1))


def test_report_says_what_limits_the_figures() -> None:
    samples = Samples(started=0.0, ended=1.0, cpu=0.95, unsent=5)
    text = report.as_text(report.Setting("m", PLAN, 1, 1), summarise(samples, 1))
    assert "5 were due and never sent" in text
    assert "the load generator was busy" in text
