"""The benchmark of replicas: what it sends, and how it tells its figures."""

from __future__ import annotations

import pytest

from benchmarks.overhead import Cost
from benchmarks.replicas import INLINE, load_of, table


@pytest.mark.parametrize(("replicas", "processes"), [(1, 1), (4, 1), (5, 2), (16, 4)])
def test_the_load_grows_with_the_replicas(replicas: int, processes: int) -> None:
    load = load_of(replicas, 1.0)
    assert load.processes == processes
    connections = load.plan.connections * processes
    assert 12 * replicas <= connections <= 16 * replicas
    assert load.plan.concurrency == 4 * connections


def test_rates_are_told_as_ratios_of_medians_to_the_inline_server() -> None:
    inline = [Cost(30.0, 10.0, rate) for rate in (90.0, 100.0, 200.0)]
    two = [Cost(31.0, 11.0, rate) for rate in (150.0, 160.0, 170.0)]
    lines = table({INLINE: inline, "2 replicas": two}).splitlines()
    assert lines[2] == "| inline | 100 | 1.00 | 30.0 | 10.0 |"
    assert lines[3] == "| 2 replicas | 160 | 1.60 | 31.0 | 11.0 |"
