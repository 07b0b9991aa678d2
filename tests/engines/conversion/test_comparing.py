"""How far two models are apart is told without hiding anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
from inferd_engines.conversion.commands.check import problems
from inferd_engines.conversion.comparing import Distance, distance, distances
from inferd_engines.conversion.errors import Differs


def test_distance_and_agreement_of_rows_with_classes() -> None:
    before = np.array([[3.0, 0], [0, 4]])
    found = distance(before, np.array([[3.0, 0], [1, 0.5]]))
    assert found.worst == 3.5
    assert found.relative == pytest.approx(math.hypot(1, 3.5) / 5)
    assert found.agreement == 0.5


def test_rows_without_classes_have_no_agreement() -> None:
    assert distance(np.ones((3, 1)), np.ones((3, 1))) == Distance(0, 0, None)


def test_nan_in_one_answer_alone_is_infinitely_far() -> None:
    ones = np.ones((2, 3))
    broken = ones.copy()
    broken[0, 0] = np.nan
    assert distance(ones, broken).worst == np.inf
    assert not distance(ones, broken).relative <= 1e9
    assert distance(broken, broken).worst == 0


def test_infinity_in_the_same_place_is_no_difference() -> None:
    array = np.array([[np.inf, 1.0]])
    assert distance(array, array).worst == 0


def test_other_outputs_are_refused() -> None:
    one = np.zeros((2, 3))
    with pytest.raises(Differs, match=r"\['a'\] and \['b'\]"):
        distances({"a": one}, {"b": one})
    with pytest.raises(Differs, match="shapes of the output 'a'"):
        distances({"a": one}, {"a": one[:1]})


def test_what_is_worse_than_allowed_is_a_problem() -> None:
    found = {"y": Distance(0.5, 0.1, 0.9)}
    assert problems(found, None, None) == []
    assert problems(found, 0.5, 0.9) == []
    assert problems(found, 0.4, None) == ["y is off by 0.5, more than 0.4"]
    assert problems({"y": Distance(np.nan, 0, None)}, 0.4, 0.9) != []
    (text,) = problems(found, None, 0.95)
    assert "90.00% of the classes agree, less than 95.00%" in text
