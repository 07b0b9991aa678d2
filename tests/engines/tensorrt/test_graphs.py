"""Graphs are tried before they answer anybody, and what goes wrong with them costs only them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from inferd_engines.engine import Array
from inferd_engines.tensorrt.graphs import differ, difference, trial_of

from tests.device.standin import INVALID_VALUE, NO_RUN, NOTHING, UNKNOWN
from tests.engines.cases import CASES
from tests.engines.tensorrt.bench import Bench
from tests.fakes.engine import DOUBLING, double

INPUTS = {"INPUT0": np.array([[5.0] * 4, [6.0] * 4], np.float32)}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def launches(bench: Bench) -> int:
    """Return how many graphs a run launches."""
    before = bench.standin.launches
    assert bench.engines[-1].run(INPUTS, {}, 2)["OUTPUT0"][:, 0].tolist() == [10, 12]
    return bench.standin.launches - before


def reasons(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {vars(record)["why"] for record in caplog.records if record.msg == "no CUDA graph"}


@pytest.mark.parametrize("kept", [NO_RUN, NOTHING])
def test_a_graph_that_holds_no_run_is_not_used(
    bench: Bench, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    bench.standin.keep(kept)
    bench.open(DOUBLING, double, buckets=(2,))
    assert launches(bench) == 0
    assert reasons(caplog) == {"as a graph, output 'OUTPUT0' is another than without"}
    assert bench.standin.held("graphs") == 0


@pytest.mark.parametrize("kept", [NO_RUN, NOTHING])
def test_a_model_whose_answer_to_zeros_is_zero_hides_no_empty_graph(
    bench: Bench, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    def answer_is_input(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] * 2}

    bench.standin.keep(kept)
    bench.open(DOUBLING, answer_is_input, buckets=(1, 2))
    assert launches(bench) == 0
    assert reasons(caplog)


def test_outputs_that_are_no_numbers_are_compared_by_their_bytes(bench: Bench) -> None:
    def roots(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        found = np.sqrt(inputs["INPUT0"])
        return {"OUTPUT0": np.where(inputs["INPUT0"] > 4, inputs["INPUT0"] * 2, found)}

    bench.open(DOUBLING, roots, buckets=(2,))
    assert launches(bench) == 1


def test_runs_that_differ_from_run_to_run_are_compared_as_near_as_they_are(bench: Bench) -> None:
    bench.open(DOUBLING, double, buckets=(4,), noise=1e-6)
    before = bench.standin.launches
    bench.engines[-1].run(INPUTS, {}, 2)
    assert bench.standin.launches == before + 1


def test_contexts_whose_kernels_differ_are_each_compared_with_themselves(bench: Bench) -> None:
    bench.open(DOUBLING, double, buckets=(1, 2), by_context=1e-4)
    before = bench.standin.launches
    answers = [bench.engines[-1].run(INPUTS, {}, 2)["OUTPUT0"] for _ in range(2)]
    assert bench.standin.launches == before + 2
    # The lanes take turns.
    assert not np.array_equal(*answers)
    np.testing.assert_allclose(*answers, rtol=1e-2)


def test_a_graph_whose_kernels_compute_something_else_is_not_used(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def other_in_graphs(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] * 2 + bench.trt.kernels.in_graph * np.float32(1e-3)}

    bench.open(DOUBLING, other_in_graphs, buckets=(2,))
    assert reasons(caplog) == {"as a graph, output 'OUTPUT0' is another than without"}
    assert bench.standin.held("graphs") == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cuStreamBeginCapture", "cuStreamBeginCapture_v2 failed: invalid argument"),
        ("cuGraphInstantiate", "cuGraphInstantiateWithFlags failed: invalid argument"),
        ("cuGraphLaunch", "cuGraphLaunch failed: invalid argument"),
    ],
)
def test_a_call_that_fails_costs_the_graph_and_not_the_load(
    bench: Bench, caplog: pytest.LogCaptureFixture, call: str, words: str
) -> None:
    bench.standin.fail(call, INVALID_VALUE, times=100)
    bench.open(DOUBLING, double, buckets=(2,))
    bench.standin.fail(call, INVALID_VALUE, times=0)
    assert launches(bench) == 0
    assert all(words in why for why in reasons(caplog))
    assert reasons(caplog)
    assert bench.standin.held("graphs") == 0


def test_the_first_error_of_a_capture_is_the_one_that_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def allocate(stream: int) -> None:
        if bench.standin.capturing(stream):
            bench.trt.failures.append("this layer takes memory")
            with pytest.raises(bench.cuda.LogicError):
                bench.cuda.mem_alloc(8)

    bench.trt.when_run = allocate
    bench.open(DOUBLING, double, buckets=(2,))
    # And not that the capture, spoilt by that, cannot be ended.
    assert reasons(caplog) == {"TensorRT could not run the plan: this layer takes memory"}
    assert launches(bench) == 0


def test_what_python_collects_meanwhile_does_not_spoil_a_capture(bench: Bench) -> None:
    class Litter:
        """Gives device memory back when Python collects it, as pycuda's objects do."""

        def __init__(self, stream: int) -> None:
            self.itself, self.stream = self, stream

        def __del__(self) -> None:
            if bench.standin.capturing(self.stream):
                bench.standin.library.cuMemFree_v2(None)

    def throw_away(stream: int) -> None:
        if bench.standin.capturing(stream):
            Litter(stream)
            assert [[one] for one in range(2000)]

    before = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        bench.trt.when_run = throw_away
        bench.open(DOUBLING, double, buckets=(2,))
    finally:
        gc.set_threshold(*before)
        bench.trt.when_run = lambda _stream: None
    assert launches(bench) == 1


def test_an_error_that_stays_is_fatal_though_it_came_within_a_capture(bench: Bench) -> None:
    bench.trt.when_run = lambda _stream: bench.standin.break_context(UNKNOWN)
    with pytest.raises(Exception, match=r"unknown error|CUDA error") as failed:
        bench.open(DOUBLING, double, buckets=(2,))
    assert failed.value.fatal  # type: ignore[attr-defined]


# TensorRT has no text.
NUMBERS = [case for case in CASES if all(t.dtype != object for t in case.signature.inputs)]


@pytest.mark.parametrize("model", NUMBERS, ids=lambda case: case.name)
def test_batches_to_try_a_graph_on_differ_and_are_not_zeros(model: Any) -> None:
    trial = trial_of(model.signature, 4)
    for name in trial.first:
        assert differ(trial.first[name], trial.second[name])


def test_arrays_are_as_far_apart_as_two_plain_runs_may_be() -> None:
    one = {"O": np.array([1.0, np.nan], np.float32)}
    near, far = ({"O": one["O"] + np.float32(by)} for by in (1e-5, 1e-2))
    assert difference(one, one, one) == ""
    assert difference(near, one, one) != ""
    assert difference(near, one, {"O": one["O"] - np.float32(1e-5)}) == ""
    assert difference(far, one, {"O": one["O"] - np.float32(1e-5)}) != ""
    ids = {"O": np.array([1, 2, 3, 4])}
    other = {"O": np.array([1, 2, 4, 3])}
    assert difference(other, ids, ids) != ""
    assert difference(other, ids, other) == ""
