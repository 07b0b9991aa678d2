"""The measuring of plans, end to end over a stand-in for the GPU and a double of TensorRT."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.tensorrt.errors import DeviceMissing, TensorRTError

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.bare import BarePlan, Loop, capture_run
from benchmarks.gpu.measuring import Effort, loops, measure, rate
from benchmarks.gpu.phases import phases
from benchmarks.gpu.results import WAYS
from benchmarks.gpu.subject import Subject
from tests.device.standin import INVALID_VALUE, Standin
from tests.gpu.subjects import doubles

EFFORT = Effort(rounds=2, seconds=5.0, repeats=3)


@pytest.fixture
def subject() -> Iterator[Subject]:
    with doubles() as made:
        yield made


def held(subject: Subject) -> int:
    """Return the device memory that is taken."""
    unused, total = subject.gpu.device.cuda.mem_get_info()
    return int(total - unused)


def ticking() -> itertools.count[float]:
    """A clock that is a second later each time it is asked."""
    return itertools.count(0.0)


def answers(loop: Loop) -> list[float]:
    """Run once, and return what the output holds."""
    loop.begin().finish()
    ((host, _),) = loop._outputs
    return host.view(np.float32).tolist()


def test_the_bare_loop_runs_the_plan_on_its_own_inputs(subject: Subject) -> None:
    with loops(subject, BarePlan(subject), 4) as two:
        for loop in two:
            ((host, _),) = loop._inputs
            assert answers(loop) == (2 * host.view(np.float32)).tolist()


def test_bare_loops_give_their_memory_back(subject: Subject) -> None:
    before = held(subject)
    with loops(subject, BarePlan(subject), 4):
        assert held(subject) > before
    assert held(subject) == before


def test_a_plan_that_cannot_be_read_is_an_error_with_the_reason(subject: Subject) -> None:
    with pytest.raises(TensorRTError, match="not one of this version"):
        BarePlan(replace(subject, plan=b"other"))


def test_phases_are_what_the_events_say(subject: Subject) -> None:
    with loops(subject, BarePlan(subject), 1) as (loop, _):
        found = phases(loop, loop.execute, subject.gpu.device.cuda, repeats=3)
    assert min(found.copy_in, found.compute, found.copy_out) > 0


def test_a_captured_run_leaves_the_copies_out(subject: Subject) -> None:
    with loops(subject, BarePlan(subject), 1) as (loop, _):
        captured = capture_run(loop, subject)
        assert captured
        ((host, _address),) = loop._outputs
        host[...] = 0
        subject.gpu.device.libcuda.launch(captured, int(loop.stream.handle))
        loop.stream.synchronize()
        assert not host.any()
    subject.gpu.device.libcuda.destroy_executable(captured)


def test_without_a_graph_there_are_phases_of_the_plain_run(subject: Subject) -> None:
    Standin().fail("cuGraphInstantiate", INVALID_VALUE, times=1000)
    for bucket in measure(subject, EFFORT, ticking().__next__, lambda _: None):
        assert bucket.plain is not None
        assert bucket.graph is None


@pytest.mark.parametrize("under_way", [1, 2])
def test_a_rate_counts_finished_runs_and_keeps_so_many_begun(under_way: int) -> None:
    numbers = itertools.count()
    begun: list[int] = []
    finished: list[int] = []
    most = 0

    def begin() -> int:
        nonlocal most
        begun.append(next(numbers))
        most = max(most, len(begun) - len(finished))
        return begun[-1]

    found = rate(begin, finished.append, 10.0, ticking().__next__, under_way)
    # The clock is asked at 0, and before each of the runs that it sees.
    assert found == 9 / 10.0
    assert most == under_way
    assert finished == begun


def test_every_bucket_is_run_in_every_way_and_everything_is_given_back(subject: Subject) -> None:
    told: list[str] = []
    before = held(subject)
    found = measure(subject, EFFORT, ticking().__next__, told.append)
    assert [bucket.rows for bucket in found] == [1, 4, 8]
    assert told == ["doubling, 1 rows", "doubling, 4 rows", "doubling, 8 rows"]
    for bucket in found:
        assert tuple(bucket.rates) == WAYS
        # Four runs in five seconds of the clock.
        assert {tuple(rates) for rates in bucket.rates.values()} == {(bucket.rows * 0.8,) * 2}
        assert bucket.plain is not None
        assert bucket.graph is not None
    assert held(subject) == before


@pytest.mark.parametrize(("flags", "code"), [([], 1), (["--or-skip"], 0)])
def test_without_a_gpu_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], code: int
) -> None:
    def missing() -> None:
        raise DeviceMissing("pycuda is not installed")

    monkeypatch.setattr(command, "find_gpu", missing)
    assert command.main(flags) == code
    assert "nothing was measured, there is no GPU: pycuda" in capsys.readouterr().err


def test_the_command_prints_both_tables_and_goes_on_after_a_failure(
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def build(gpu: object, name: str, *rest: object) -> Subject:
        if name == "digits fp16":
            raise TensorRTError("no such precision")
        return replace(subject, name=name)

    monkeypatch.setattr(command, "find_gpu", lambda: subject.gpu)
    monkeypatch.setattr(command, "build", build)
    figures = tmp_path / "figures.json"
    flags = ["--model", "digits,other.onnx", "--seconds", "0.001", "--rounds", "1"]
    assert command.main([*flags, "--json", str(figures)]) == 1
    said = capsys.readouterr()
    assert "digits fp16 failed: no such precision" in said.err
    for row in ("| digits fp32 | 1 | 1 |", "| other fp32 | 8 | 2 |", "| other fp16 | 8 | 0."):
        assert row in said.out
    measured = json.loads(figures.read_text())["buckets"]
    assert [each["model"] for each in measured[::3]] == ["digits fp32", "other fp32", "other fp16"]
