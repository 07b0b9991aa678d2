"""The benchmark of recording still fits what it measures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.recording import costs

pytestmark = pytest.mark.slow


def test_what_is_taken_is_measured_and_written(tmp_path: Path) -> None:
    told = costs(0.01, {"record_to": tmp_path, "record_part_bytes": 256 * 1024})
    each, taken = map(float, re.findall(r"([\d.]+) us (?:more|for each)", told))
    assert each < taken
    assert re.search(r"[1-9][\d,]* of [\d,]+ taken were written", told)
