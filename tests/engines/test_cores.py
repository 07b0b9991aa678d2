"""Cores are counted as the scheduler and a container's limit leave them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.cores import cores_under, usable_cores


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [
        (64, "200000 100000", 2),
        (64, "150000 100000", 2),
        (64, "50000 100000", 1),
        (2, "400000 100000", 2),
        (8, "max 100000", 8),
        (8, "", 8),
        (8, "nonsense", 8),
        (8, "100000 0", 8),
    ],
)
def test_the_lesser_of_affinity_and_limit_counts(affinity: int, limit: str, expected: int) -> None:
    assert cores_under(affinity, limit) == expected


@given(st.integers(1, 512), st.text())
def test_any_limit_leaves_a_core_and_never_more_than_affinity(affinity: int, limit: str) -> None:
    assert 1 <= cores_under(affinity, limit) <= affinity


def test_a_limit_file_is_read(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert usable_cores(quota) == 1


def test_without_a_limit_file_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "cpu.max") >= 1
