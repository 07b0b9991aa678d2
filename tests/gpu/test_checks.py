"""Graphs, faults and memory: on hardware, and on doubles so that the code of the checks is right.

What only hardware can answer is in test_engine.py and test_overlap.py.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd_engines.tensorrt.errors import PlanRefused

from benchmarks.gpu.subject import Subject

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
MIB = 1 << 20
LEFT = 16 * MIB
"""Bytes that are too few for any plan."""


def on_doubles(subject: Subject) -> bool:
    return subject.gpu.device.gpu.name == "Fake GPU"


def test_every_bucket_becomes_a_graph(subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "inferd_engines.tensorrt.replay"):
        subject.engine(graphs=True).close()
    refused = [vars(record)["why"] for record in caplog.records if record.msg == "no CUDA graph"]
    assert refused == []


def test_a_replay_gives_what_a_plain_run_gives(subject: Subject) -> None:
    with_graphs, plain = subject.engine(graphs=True), subject.engine(graphs=False)
    generator = np.random.default_rng(0)
    for rows in (*subject.buckets, 3, 5):
        inputs = subject.inputs(rows, generator)
        # Twice, because the lanes take turns and each has graphs of its own.
        for _ in range(2):
            one, other = with_graphs.run(inputs, {}, rows), plain.run(inputs, {}, rows)
            for name in other:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)
    with_graphs.close()
    plain.close()


def test_a_replay_reads_its_inputs_anew(subject: Subject) -> None:
    engine = subject.engine(graphs=True)
    generator = np.random.default_rng(0)
    (name,) = (tensor.name for tensor in subject.signature.outputs[:1])
    answers = [engine.run(subject.inputs(1, generator), {}, 1)[name] for _ in range(4)]
    assert len({answer.tobytes() for answer in answers}) == 4
    engine.close()


def test_a_sticky_error_is_fatal_for_its_process_and_for_no_other(subject: Subject) -> None:
    engine = subject.engine(graphs=True)
    inputs = subject.inputs(1, np.random.default_rng(0))
    before = engine.run(inputs, {}, 1)
    kind = {("tensorrt", True): "doubles", ("kernels", True): "kernels"}.get(
        (subject.gpu.library.flavour, on_doubles(subject)),
        "kernels on hardware" if subject.gpu.library.flavour == "kernels" else "hardware",
    )
    told = child(kind)
    assert told["ran"] == sorted(before)
    assert told["fatal"], told
    assert "illegal memory access" in told["text"]
    after = engine.run(inputs, {}, 1)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    engine.close()


def child(kind: str) -> dict[str, Any]:
    """Run the process that breaks its context, and return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.sticky", kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_loading_and_closing_twenty_times_gives_all_memory_back(subject: Subject) -> None:
    device = subject.gpu.device
    # CUDA keeps what its modules and streams took at first.
    subject.engine(graphs=True).close()
    before = device.free_bytes()
    for _ in range(20):
        subject.engine(graphs=True).close()
    assert device.free_bytes() >= before - (0 if on_doubles(subject) else 8 * MIB)


def test_a_plan_that_finds_too_little_memory_is_refused_and_takes_none(subject: Subject) -> None:
    device = subject.gpu.device
    with nearly_full(device.cuda):
        before = device.free_bytes()
        with pytest.raises(PlanRefused, match=r"needs about \d+ MiB .* MiB are free"):
            subject.engine(graphs=True)
        assert device.free_bytes() >= before - MIB
    subject.engine(graphs=True).close()


@contextmanager
def nearly_full(cuda: Any) -> Iterator[None]:
    """Take all memory of the device but a little."""
    taken, size = [], 1024 * MIB
    try:
        while size >= MIB:
            free, _ = cuda.mem_get_info()
            wanted = min(size, free - LEFT)
            if wanted < MIB:
                break
            try:
                taken.append(cuda.mem_alloc(wanted))
            except cuda.MemoryError:
                size //= 2
        yield
    finally:
        for each in taken:
            each.free()
