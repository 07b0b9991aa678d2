"""For which shapes a plan is made."""

from __future__ import annotations

import numpy as np
import pytest
from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.profiles import Profile, Range, bucket_for, profiles_for

F32 = np.dtype(np.float32)


def signature(*shapes: tuple[int | None, ...]) -> Signature:
    return Signature(tuple(Tensor(f"I{i}", F32, shape) for i, shape in enumerate(shapes)), ())


def test_every_bucket_gets_a_profile_of_exactly_its_rows() -> None:
    found = profiles_for(signature((None, 3)), (8, 1, 8), {}, batched=True)
    assert found == tuple(
        Profile(rows, {"I0": Range((rows, 3), (rows, 3), (rows, 3))}) for rows in (1, 8)
    )


def test_other_free_dimensions_take_their_range_in_every_bucket() -> None:
    asked = {"I1": Range((1,), (64,), (512,))}
    (found,) = profiles_for(signature((None, 3), (None, None)), (4,), asked, batched=True)
    assert found.ranges == {
        "I0": Range((4, 3), (4, 3), (4, 3)),
        "I1": Range((4, 1), (4, 64), (4, 512)),
    }


def test_a_model_without_a_batch_needs_profiles_for_free_dimensions_only() -> None:
    assert profiles_for(signature((3, 4)), (1,), {}, batched=False) == ()
    asked = {"I1": Range((3, 1), (3, 8), (3, 9))}
    (found,) = profiles_for(signature((3, 4), (3, None)), (1,), asked, batched=False)
    assert found == Profile(0, {"I1": asked["I1"]})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, r"'I0' has the shape \[\?, 3, \?\]: every free dimension .* needs a range"),
        ({"I0": Range((3,), (3,), (3,))}, r"'I0' is \[3, \?\], and the range has \(3,\)"),
        ({"I0": Range((4, 1), (4, 2), (4, 3))}, r"the range has \(4, 1\)"),
        ({"I0": Range((3, 5), (3, 2), (3, 9))}, "does not rise"),
        ({"I0": Range((3, 0), (3, 2), (3, 9))}, "does not rise"),
        ({"X": Range((1,), (1,), (1,)), "I0": Range((3, 1), (3, 2), (3, 3))}, "no input 'X'"),
    ],
)
def test_a_range_that_is_missing_or_wrong_is_said(asked: dict[str, Range], words: str) -> None:
    with pytest.raises(BuildFailed, match=words):
        profiles_for(signature((None, 3, None)), (1,), asked, batched=True)


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 4), (4, 4), (5, 8), (9, None)])
def test_rows_go_to_the_smallest_bucket_that_holds_them(rows: int, bucket: int | None) -> None:
    assert bucket_for(rows, (1, 4, 8)) == bucket
