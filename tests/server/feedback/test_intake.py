"""Labels are judged one by one: what counts, what is refused, and why."""

from __future__ import annotations

import numpy as np
import pytest
from inferd.v1.feedback_pb2 import FeedbackRequest, PredictionLabels, TrueLabel
from inferd_engines.engine import Tensor
from inferd_server.errors import InvalidInput, ResourceExhausted
from inferd_server.feedback.intake import MOST_CLASSES, OTHER
from inferd_server.models.config import FeedbackConfig, ModelConfig
from inferd_server.rpc.feedback import MOST_LABELS, MOST_TOKENS, Feedback

from tests.fakes.signer import signer
from tests.server.feedback.intake import Bench

WEEK = 604_800


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_labels_by_index_and_by_name_count(bench: Bench) -> None:
    assert bench.take(bench.token(0, 1, 2), 0, "dog", "cat").rows == 3
    assert bench.value("inferd_model_accuracy") == 2 / 3
    assert bench.value("inferd_model_recall", **{"class": "dog"}) == 1.0
    assert bench.value("inferd_model_precision", **{"class": "bird"}) == 0.0
    assert bench.value("inferd_model_confidence") == 0.5


def test_a_row_of_which_nothing_is_known_does_not_count(bench: Bench) -> None:
    assert bench.take(bench.token(0, 1), None, 1).rows == 1
    assert bench.value("inferd_model_accuracy_support") == 1


def test_a_doubled_token_counts_once(bench: Bench) -> None:
    token = bench.token(0)
    assert bench.take(token, 0).rows == 1
    assert bench.take(token, 0).reason == "DOUBLED"
    assert bench.reasons((other := bench.token(1), [1]), (other, [1])) == ["", "DOUBLED"]
    assert bench.value("inferd_model_accuracy_support") == 2
    assert bench.refused("DOUBLED") == 2


def test_a_token_is_late_after_its_time(bench: Bench) -> None:
    first, second = bench.token(0), bench.token(0)
    bench.clock.advance(WEEK)
    assert bench.take(first, 0).rows == 1
    bench.clock.advance(1)
    outcome = bench.take(second, 0)
    assert outcome.reason == "LATE"
    assert "feedback_max_age_s" in outcome.text
    assert bench.refused("LATE") == 1


def test_a_forged_token_is_refused(bench: Bench) -> None:
    token = bench.token(0)
    strange = signer(b"x" * 32, wall=bench.clock).sign(bench.signer.read(token).prediction)
    for forged in (strange, token[:-1], "", "A" * 10_000_000):
        assert bench.take(forged, 0).reason == "FORGED"
    assert bench.refused("FORGED") == 4
    assert bench.value("inferd_model_accuracy") is None


@pytest.mark.parametrize(("model", "version"), [("gone", 1), ("m", 2)])
def test_a_token_of_a_model_that_is_not_here_is_refused(
    bench: Bench, model: str, version: int
) -> None:
    assert bench.take(bench.token(0, model=model, version=version), 0).reason == "UNKNOWN_MODEL"
    assert bench.refused("UNKNOWN_MODEL") == 1


def test_a_token_of_other_files_under_the_same_version_is_refused(bench: Bench) -> None:
    token = bench.token(0)
    bench.digest = "cd" * 32
    assert bench.take(token, 0).reason == "UNKNOWN_MODEL"
    bench.digest = ""
    assert bench.take(token, 0).rows == 1


def test_a_token_of_another_output_than_now_is_refused(bench: Bench) -> None:
    token = bench.token(0)
    bench.config = ModelConfig(feedback=FeedbackConfig(output="nope"))
    assert bench.take(token, 0).reason == "UNKNOWN_MODEL"


def test_a_token_of_a_model_that_is_being_loaded_may_be_sent_again(bench: Bench) -> None:
    token = bench.token(0)
    bench.loading = True
    assert bench.take(token, 0).reason == "MODEL_NOT_READY"
    bench.loading = False
    assert bench.take(token, 0).rows == 1


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((), "0 labels came for the 1 rows"),
        ((0, 1), "2 labels came for the 1 rows"),
        ((3,), "there is no class 3: the model tells 3 apart"),
        ((-1,), "there is no class -1"),
        ((2**62,), "there is no class"),
        (("cow",), "known are bird, cat, dog"),
        (("",), "no class is called ''"),
    ],
)
def test_a_label_that_the_model_does_not_have_is_refused_and_the_token_stays_good(
    bench: Bench, labels: tuple[int | str, ...], said: str
) -> None:
    token = bench.token(0)
    outcome = bench.take(token, *labels)
    assert outcome.reason == "BAD_LABEL"
    assert said in outcome.text
    assert bench.take(token, 0).rows == 1


def test_without_labels_in_model_yaml_a_name_is_refused_and_an_index_counts(bench: Bench) -> None:
    bench.config = ModelConfig()
    token = bench.token(0)
    assert "send its index" in bench.take(token, "cat").text
    assert bench.take(token, 0).rows == 1
    assert bench.value("inferd_model_recall", **{"class": "0"}) == 1.0


def test_a_name_of_two_classes_names_none(bench: Bench) -> None:
    bench.config = ModelConfig(labels={"scores": ["cat", "cat", "dog"]})
    token = bench.token(0)
    assert bench.take(token, "cat").reason == "BAD_LABEL"
    assert bench.take(token, 0).rows == 1


def test_classes_beyond_the_bound_share_their_metrics(bench: Bench) -> None:
    bench.config = ModelConfig()
    bench.output = Tensor("class", np.dtype(np.int64), (None,))
    classes = range(MOST_CLASSES + 50)
    bench.take(bench.token(*classes), *classes)
    bench.take(bench.token(500, 501, -1), 501, 501, -1)
    (recall,) = (m for m in bench.metrics.registry.collect() if m.name == "inferd_model_recall")
    assert len(recall.samples) == MOST_CLASSES + 1
    assert bench.value("inferd_model_recall", **{"class": OTHER}) == 52 / 53


def test_one_bad_token_does_not_keep_the_others_from_counting(bench: Bench) -> None:
    good, bad = (bench.token(0), [0]), (bench.token(1), [9])
    assert bench.reasons(good, ("forged", [0]), bad, (bench.token(2), [2])) == [
        "", "FORGED", "BAD_LABEL", "",
    ]  # fmt: skip
    assert bench.value("inferd_model_accuracy_support") == 2


def test_more_labels_than_may_come_in_a_second_are_refused_until_there_is_room() -> None:
    bench = Bench(feedback_labels_per_second=10)
    for _ in range(5):
        assert bench.take(bench.token(0, 1), 0, 1).rows == 2
    with pytest.raises(ResourceExhausted, match="feedback_labels_per_second") as refused:
        bench.take(bench.token(0, 1), 0, 1)
    assert refused.value.retry_after == pytest.approx(0.2)
    bench.clock.advance(0.25)
    assert bench.take(bench.token(0, 1), 0, 1).rows == 2


def test_a_call_may_bring_so_many_tokens_and_labels(bench: Bench) -> None:
    service = Feedback(bench.intake)
    one = PredictionLabels(token=bench.token(0), labels=[TrueLabel(index=0)])
    with pytest.raises(InvalidInput, match="1001 tokens with 1001 labels are too many"):
        service.feedback(FeedbackRequest(predictions=[one] * (MOST_TOKENS + 1)))
    many = PredictionLabels(token="x", labels=[TrueLabel()] * (MOST_LABELS + 1))
    with pytest.raises(InvalidInput, match="10001 labels are too many"):
        service.feedback(FeedbackRequest(predictions=[many]))
    with pytest.raises(InvalidInput, match="predictions is empty"):
        service.feedback(FeedbackRequest())
    found = service.feedback(FeedbackRequest(predictions=[one] * MOST_TOKENS))
    assert [each.reason for each in found.results] == ["", *["DOUBLED"] * (MOST_TOKENS - 1)]
