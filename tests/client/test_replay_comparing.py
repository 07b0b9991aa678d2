"""What counts as another answer, by datatype."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from inferd.tensors import DATATYPES, Array
from inferd_client.replay.comparing import Limits, difference_of, differences

USUAL = Limits()
NAN, INF = math.nan, math.inf


def floats(*values: float, dtype: object = np.float32) -> Array:
    return np.array(values, dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_equal_outputs_of_every_datatype_agree(datatype: str) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(DATATYPES[datatype])
    assert difference_of("y", values, values.copy(), USUAL) is None
    assert difference_of("y", values[:0], values[:0], USUAL) is None


@pytest.mark.parametrize(
    ("dtype", "within", "beyond"),
    [
        (np.float64, 1e-8, 1e-6),
        (np.float32, 5e-5, 5e-4),
        (np.float16, 5e-3, 5e-2),
        (ml_dtypes.bfloat16, 2e-2, 2e-1),
    ],
)
def test_floats_may_be_roundings_apart_and_no_more(
    dtype: object, within: float, beyond: float
) -> None:
    recorded = floats(1.0, -100.0, dtype=dtype)
    near = floats(1.0, -100.0 * (1 + within), dtype=dtype)
    far = floats(1.0, -100.0 * (1 + beyond), dtype=dtype)
    assert difference_of("y", recorded, near, USUAL) is None
    found = difference_of("y", recorded, far, USUAL)
    assert found is not None
    assert (found.what, found.place) == ("1 of 2 elements", (1,))
    assert found.largest == pytest.approx(100 * beyond, rel=0.1)
    assert difference_of("y", recorded, far, Limits(rtol=2 * beyond)) is None
    exact = difference_of("y", recorded, near, Limits(0.0, 0.0))
    assert (exact is None) == (near[1] == recorded[1])


def test_the_element_that_is_furthest_away_is_told() -> None:
    recorded, got = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    got[0, 1], got[1, 2] = 0.5, -0.75
    found = difference_of("y", recorded, got, USUAL)
    assert found is not None
    assert (found.what, found.place, found.largest) == ("2 of 6 elements", (1, 2), 0.75)
    assert (found.recorded, found.answered) == ("0.0", "-0.75")


@pytest.mark.parametrize(
    ("recorded", "got", "agrees"),
    [
        (NAN, NAN, True),
        (INF, INF, True),
        (-INF, -INF, True),
        (NAN, 0.0, False),
        (0.0, NAN, False),
        (INF, 3.4e38, False),
        (3.4e38, INF, False),
        (INF, -INF, False),
        (INF, NAN, False),
        (0.0, -0.0, True),
    ],
)
def test_what_is_no_number_agrees_with_itself_alone(
    recorded: float, got: float, agrees: bool
) -> None:
    found = difference_of("y", floats(1.0, recorded), floats(1.0, got), USUAL)
    assert (found is None) == agrees
    if found is not None:
        assert found.place == (1,)
        assert found.largest == INF


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64])
def test_whole_numbers_agree_exactly(dtype: type[np.generic]) -> None:
    recorded = np.array([5, 120], dtype)
    found = difference_of("class", recorded, np.array([5, 121], dtype), Limits(1.0, 10.0))
    assert found is not None
    assert (found.place, found.largest) == ((1,), 1.0)


def test_large_whole_numbers_that_differ_in_the_last_bit_differ() -> None:
    found = difference_of(
        "n", np.array([2**63 + 1], np.uint64), np.array([2**63], np.uint64), USUAL
    )
    assert found is not None
    assert (found.recorded, found.answered) == (str(2**63 + 1), str(2**63))


def test_texts_and_booleans_agree_exactly() -> None:
    recorded = np.array([b"cat", b"dog"], np.object_)
    found = difference_of("label", recorded, np.array([b"cat", b"do\xff"], np.object_), USUAL)
    assert found is not None
    assert (found.place, found.recorded, found.answered) == ((1,), "dog", r"do\xff")
    assert difference_of("b", np.array([True]), np.array([False]), USUAL) is not None


def test_other_shapes_datatypes_and_missing_outputs_are_differences() -> None:
    recorded = {"a": floats(1.0), "b": floats(1.0), "c": floats(1.0), "d": floats(1.0)}
    answered = {"a": floats(1.0, 1.0), "b": np.array([1]), "d": floats(1.0), "e": floats(1.0)}
    found = differences(recorded, answered, USUAL)
    assert [(one.output, one.what) for one in found] == [
        ("a", "shape [1] was recorded, [2] answered"),
        ("b", "FP32 was recorded, INT64 answered"),
        ("c", "it was not answered"),
    ]
