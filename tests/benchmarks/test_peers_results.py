"""Medians, ratios, and the table of them."""

from __future__ import annotations

import json

import pytest

from benchmarks.peers.results import Results, medians, number

TITLES = {"inferd": "inferd", "triton-0": "Triton, 0 ms", "kserve": "KServe"}


def cells(table: str, line: int) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[line].strip("|").split("|")]


def test_the_ratio_is_of_medians_with_the_first_server_above() -> None:
    results = Results()
    for value in (900.0, 3000.0, 1000.0):
        results.add("digits-32", "per_s", "inferd", value)
    for value in (400.0, 500.0, 9000.0):
        results.add("digits-32", "per_s", "triton-0", value)
    row = cells(results.table(TITLES), 2)
    assert row == ["digits-32", "requests/s", "1.00 (1,000)", "2.00 (500)", "-", "-"]


def test_the_header_names_every_server_and_bare_onnx_runtime() -> None:
    table = Results().table(TITLES)
    assert cells(table, 0) == ["load", "figure", *TITLES.values(), "bare ONNX Runtime"]
    assert cells(table, 1) == ["---", "---", "---:", "---:", "---:", "---:"]


def test_a_server_that_cannot_do_a_load_has_no_figure() -> None:
    results = Results()
    results.add("digits-stream-32", "p99_ms", "inferd", 5.0)
    results.add("digits-stream-32", "p99_ms", "triton-0", 10.0)
    assert cells(results.table(TITLES), 2)[-3:] == ["0.50 (10)", "-", "-"]


def test_bare_onnx_runtime_is_compared_by_its_best_size_of_batch() -> None:
    results = Results()
    results.add("resnet50-8", "per_s", "bare, batches of 1", 20.0)
    results.add("resnet50-8", "per_s", "bare, batches of 8", 25.0)
    results.add("resnet50-8", "per_s", "inferd", 24.0)
    assert cells(results.table(TITLES), 2)[-1] == "0.96 (25)"


def test_without_the_first_server_there_are_medians_and_no_ratios() -> None:
    results = Results()
    results.add("mean-32", "per_s", "kserve", 950.0)
    assert cells(results.table(TITLES), 2)[2:] == ["-", "-", "(950)", "-"]


def test_medians_are_of_each_server_alone() -> None:
    assert medians({"a": [1.0, 2.0, 9.0], "b": [4.0, 6.0]}) == {"a": 2.0, "b": 5.0}


def test_the_figures_of_every_round_are_kept_for_json() -> None:
    results = Results()
    results.add("mean-32", "p50_ms", "inferd", 1.5)
    results.add("mean-32", "p50_ms", "inferd", 2.5)
    kept = json.loads(json.dumps(results.as_json()))
    assert kept == {"mean-32": {"p50_ms": {"inferd": [1.5, 2.5]}}}


@pytest.mark.parametrize(
    ("value", "text"), [(0.50512, "0.505"), (11.04, "11"), (31.44, "31.4"), (13400.4, "13,400")]
)
def test_numbers_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text
