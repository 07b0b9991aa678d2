"""Which output has the classes, and which class each of its rows is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from inferd_engines.engine import Signature, Tensor
from inferd_server.errors import InvalidInput
from inferd_server.models.config import FeedbackConfig, ModelConfig
from inferd_server.models.predictions import class_count, predicted, predicting_output

NAN = float("nan")


def output(name: str, dtype: Any, *shape: int | None) -> Tensor:
    return Tensor(name, np.dtype(dtype), shape)


LABEL = output("label", np.int64, None)
SCORES = output("scores", np.float32, None, 3)
OTHER = output("other", np.float32, None, 8)
TEXT = output("text", object, None)


@pytest.mark.parametrize(
    ("outputs", "config", "found"),
    [
        ((SCORES,), ModelConfig(), SCORES),
        ((TEXT, LABEL), ModelConfig(), LABEL),
        # As scikit-learn's converter writes classifiers.
        ((LABEL, SCORES), ModelConfig(), SCORES),
        ((SCORES, OTHER), ModelConfig(labels={"other": ["a"]}), OTHER),
        ((SCORES, OTHER), ModelConfig(feedback=FeedbackConfig(output="scores")), SCORES),
    ],
)
def test_the_output_with_the_classes_is_found(
    outputs: tuple[Tensor, ...], config: ModelConfig, found: Tensor
) -> None:
    assert predicting_output(Signature((), outputs), config) is found


@pytest.mark.parametrize(
    ("outputs", "named", "said"),
    [
        ((SCORES, OTHER), None, "feedback.output in its model.yaml names one of numbers"),
        ((TEXT,), None, "which output has the classes"),
        ((SCORES,), "nope", "the model gives scores"),
        ((TEXT, SCORES), "text", "'text' is text"),
    ],
)
def test_an_output_that_cannot_be_told_is_said(
    outputs: tuple[Tensor, ...], named: str | None, said: str
) -> None:
    config = ModelConfig(feedback=FeedbackConfig(output=named))
    with pytest.raises(InvalidInput, match=said):
        predicting_output(Signature((), outputs), config)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_highest_score_wins_the_first_of_equal_ones_and_never_a_nan(dtype: Any) -> None:
    scores = np.array([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [NAN, 0.0, 0.25]], dtype)
    classes, sure = predicted(scores, batched=True, threshold=0.5)
    assert classes.tolist() == [1, 0, 2]
    assert sure.tolist() == [0.75, 0.5, 0.25]


def test_scores_in_several_dimensions_are_numbered_in_their_order() -> None:
    scores = np.arange(12.0).reshape(1, 3, 4)
    assert predicted(scores, batched=True, threshold=0.5)[0].tolist() == [11]


def test_without_a_batch_dimension_all_of_it_is_one_row() -> None:
    assert predicted(np.array([0.1, 0.9]), batched=False, threshold=0.5)[0].tolist() == [1]


def test_a_single_float_is_the_score_of_class_1() -> None:
    classes, sure = predicted(np.array([[0.9], [0.7], [0.2]]), batched=True, threshold=0.8)
    assert classes.tolist() == [1, 0, 0]
    assert np.allclose(sure, [0.9, 0.3, 0.8])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_single_whole_number_is_the_class_itself(shape: tuple[int, ...]) -> None:
    classes, sure = predicted(np.array([-1, 7]).reshape(shape), batched=True, threshold=0.5)
    assert classes.tolist() == [-1, 7]
    assert np.isnan(sure).all()


def test_whole_numbers_are_scores_where_a_row_has_several() -> None:
    classes, sure = predicted(np.array([[1, 255, 3]], np.uint8), batched=True, threshold=0.5)
    assert classes.tolist() == [1]
    assert np.isnan(sure).all()


def test_rows_without_scores_have_no_prediction() -> None:
    with pytest.raises(InvalidInput, match="without scores"):
        predicted(np.zeros((2, 0)), batched=True, threshold=0.5)


@pytest.mark.parametrize(
    ("tensor", "batched", "count"),
    [
        (SCORES, True, 3),
        (LABEL, True, None),
        (output("p", np.float32, None, 1), True, 2),
        (output("b", np.bool_, None), True, 2),
        (output("free", np.float32, None, None), True, None),
        (output("one", np.float32, 4), False, 4),
    ],
)
def test_the_signature_tells_how_many_classes_there_are(
    tensor: Tensor, batched: bool, count: int | None
) -> None:
    assert class_count(tensor, batched=batched) == count
