"""Which plans may serve: near enough, ranked alike, and no NaN that the model does not give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from inferd_engines.engine import Array
from inferd_engines.tensorrt.gate import AGREEMENT, RELATIVE, accept, compare
from inferd_engines.tensorrt.options import PRECISIONS
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_engines.tensorrt.trial import drawn

from tests.fakes.engine import DOUBLING, FakeEngine, double

SCORES = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]], np.float32)


def problems(expected: Array, found: Array, precision: str = "fp32") -> list[str]:
    return compare([{"O": expected}], [{"O": found}], precision).problems


def test_equal_answers_are_accepted() -> None:
    assert problems(SCORES, SCORES) == []


def test_every_precision_has_a_tolerance() -> None:
    assert set(RELATIVE) == set(AGREEMENT) == set(PRECISIONS)


@pytest.mark.parametrize(
    ("precision", "off", "accepted"),
    [("fp32", 0.0005, True), ("fp32", 0.01, False), ("fp16", 0.01, True), ("fp16", 0.1, False)],
)
def test_the_tolerance_is_a_part_of_the_largest_value(
    precision: str, off: float, accepted: bool
) -> None:
    found = SCORES.copy()
    found[0, 0] += off * SCORES.max()
    assert (problems(SCORES, found, precision) == []) is accepted


def test_another_largest_element_is_refused_though_the_values_are_near() -> None:
    expected = np.array([[1.0, 1.0015]] * 4, np.float32)
    found = np.array([[1.0009, 1.0008]] * 4, np.float32)
    (problem,) = problems(expected, found)
    assert problem == "output 'O' ranks 0% of the rows alike, 99% are wanted"


def test_rows_whose_largest_element_hardly_stands_out_do_not_count() -> None:
    expected = np.array([[1.0, 1.0001]] * 4 + [[1.0, 2.0]], np.float32)
    found = np.array([[1.0001, 1.0]] * 4 + [[1.0, 2.0]], np.float32)
    assert problems(expected, found) == []
    # A model that answers all classes alike has no largest one.
    assert problems(expected[:4], found[:4]) == []


def test_fp32_is_held_to_more_than_tf32() -> None:
    # As far as a ResNet-50 is off in TF32.
    found = SCORES + np.float32(4e-3 * 3)
    assert problems(SCORES, found, "fp32") != []
    assert problems(SCORES, found, "tf32") == []


def test_a_nan_that_the_model_does_not_give_is_refused_and_its_own_is_not() -> None:
    found = SCORES.copy()
    found[1, 1] = np.nan
    assert "1 elements that are no numbers" in problems(SCORES, found)[0]
    assert problems(found, found) == []


def test_another_shape_is_refused() -> None:
    assert problems(SCORES, SCORES[:1])


def test_integers_are_compared_and_not_ranked() -> None:
    expected = np.array([[1, 2], [3, 4]], np.int64)
    assert problems(expected, expected) == []
    assert problems(expected, expected + 1)


def test_zeros_are_compared_as_they_are() -> None:
    zeros = np.zeros((2, 2), np.float32)
    assert problems(zeros, zeros) == []
    assert problems(zeros, zeros + 1)


def test_both_engines_run_on_the_same_inputs() -> None:
    def wrong(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] * 2.5}

    inputs = drawn(
        DOUBLING, profiles_for(DOUBLING, (1, 2), {}, batched=True), np.random.default_rng(0)
    )
    reference = FakeEngine(DOUBLING, double)
    assert accept(FakeEngine(DOUBLING, double), reference, inputs, "fp32").problems == []
    report = accept(FakeEngine(DOUBLING, wrong), reference, inputs, "fp32")
    assert report.outputs[0].error == pytest.approx(0.25)
    assert report.problems
