"""The tables of what was measured on a GPU."""

from __future__ import annotations

import json

from benchmarks.gpu.phases import Phases
from benchmarks.gpu.results import BARE, Bucket, Way, throughput, times


def cells(table: str, line: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[line].strip("|").split("|")]


def measured() -> Bucket:
    made = Bucket("digits fp16", 8)
    for rate in (900.0, 3000.0, 1000.0):
        made.add(Way(BARE, 1), rate)
    for rate in (500.0, 400.0, 9000.0):
        made.add(Way("plain", 1), rate)
    made.add(Way(BARE, 2), 2000.0)
    made.add(Way("graphs", 2), 2500.0)
    return made


def test_ratios_are_of_medians_to_the_bare_loop_with_as_many_runs_under_way() -> None:
    table = throughput([measured()])
    assert cells(table, 2) == ["digits fp16", "8", "1", "1,000", "0.50 (500)", "-"]
    assert cells(table, 3) == ["digits fp16", "8", "2", "2,000", "-", "1.25 (2,500)"]


def test_times_are_of_the_plain_run_and_the_graphs_run_beside_it() -> None:
    bucket = measured()
    assert len(times([bucket]).splitlines()) == 2
    bucket.plain = Phases(0.1, 0.25, 0.05)
    assert cells(times([bucket]), 2)[2:] == ["0.100", "0.250", "-", "0.050"]
    bucket.graph = Phases(0.1, 0.2, 0.05)
    assert cells(times([bucket]), 2)[2:] == ["0.100", "0.250", "0.200", "0.050"]


def test_every_figure_is_kept_for_json() -> None:
    bucket = measured()
    bucket.plain = Phases(0.1, 0.25, 0.05)
    kept = json.loads(json.dumps(bucket.as_json()))
    assert kept["rows_per_s"]["plain, 1"] == [500.0, 400.0, 9000.0]
    assert kept["plain_ms"] == {"copy_in": 0.1, "compute": 0.25, "copy_out": 0.05}
    assert kept["graph_ms"] is None
