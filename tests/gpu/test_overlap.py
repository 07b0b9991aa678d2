"""Two runs that were begun take less than two runs one after the other, by the GPU's clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.options import BuildOptions

from benchmarks import resnet50
from benchmarks.gpu.overlap import TwoRuns
from benchmarks.gpu.subject import Subject, build

REPEATS = 20


def two_runs(subject: Subject, rows: int, *, graphs: bool) -> tuple[float, float]:
    """Return milliseconds apart and together."""
    engine = subject.engine(graphs=graphs)
    inputs = subject.inputs(rows, np.random.default_rng(0))
    found = TwoRuns(engine, inputs, rows, subject.gpu.device.cuda).measure(REPEATS)
    engine.close()
    return found.apart, found.together


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("graphs", [True, False])
def test_runs_under_way_overlap(gpu: Gpu, tmp_path: Path, graphs: bool) -> None:
    model = resnet50.write(tmp_path)
    options = BuildOptions(buckets=(8,))
    apart, together = two_runs(build(gpu, "resnet50", model, options), 8, graphs=graphs)
    assert together < apart


@pytest.mark.parametrize("graphs", [True, False])
def test_both_are_measured(subject: Subject, graphs: bool) -> None:
    apart, together = two_runs(subject, 4, graphs=graphs)
    assert apart > 0
    assert together > 0
