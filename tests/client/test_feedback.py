"""Feedback as the clients send it and as the command reports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferd.v1 import feedback_pb2 as pb
from inferd_client import errors, feedback
from inferd_client.cli import main
from inferd_client.commands.feedback import label_of

GOOD = pb.FeedbackResult(rows=1)
BAD = pb.FeedbackResult(reason="LATE", message="the answer is old")


def sent(labels: Any) -> list[tuple[str | None, Any]]:
    """Return the kind and value of each label as it travels."""
    (prediction,) = feedback.one("token", labels).message.predictions  # type: ignore[attr-defined]
    kinds = [label.WhichOneof("label") for label in prediction.labels]
    return [
        (kind, kind and getattr(label, kind))
        for kind, label in zip(kinds, prediction.labels, strict=True)
    ]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (7, [("index", 7)]),
        ("cat", [("name", "cat")]),
        (None, [(None, None)]),
        ([1, "cat", None], [("index", 1), ("name", "cat"), (None, None)]),
        (np.int64(3), [("index", 3)]),
        (np.array([0, 2]), [("index", 0), ("index", 2)]),
        ((), []),
    ],
)
def test_labels_travel_by_index_or_name(labels: Any, found: list[tuple[str | None, Any]]) -> None:
    assert sent(labels) == found


@pytest.mark.parametrize("labels", [1.5, [0.0], b"cat", 2**63, {"a": 1}, "\ud800"])
def test_what_is_no_label_is_refused_before_it_is_sent(labels: Any) -> None:
    with pytest.raises(errors.InvalidInput):
        feedback.one("token", labels)


def test_a_refused_token_is_an_error_and_one_of_many_an_outcome() -> None:
    response = pb.FeedbackResponse(results=[BAD])
    with pytest.raises(errors.FeedbackRefused, match="the answer is old") as refused:
        feedback.one("token", 1).read(response)
    assert refused.value.details == {"reason": "LATE"}
    assert [each.reason for each in feedback.many([("token", 1)]).read(response)] == ["LATE"]


def test_an_answer_with_another_number_of_results_is_none() -> None:
    with pytest.raises(errors.InvalidResponse, match="2 results came for 1 tokens"):
        feedback.one("token", 1).read(pb.FeedbackResponse(results=[GOOD, GOOD]))


def test_it_is_never_sent_twice() -> None:
    assert not feedback.one("token", 1).repeatable
    assert not feedback.many([("token", 1)]).repeatable


@pytest.mark.parametrize(
    ("text", "label"), [("7", 7), ("-1", -1), ("-", None), ("cat", "cat"), ("1.5", "1.5")]
)
def test_the_command_takes_numbers_for_indexes(text: str, label: feedback.Label) -> None:
    assert label_of(text) == label


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a token with its labels, or --file, was expected"),
        (["token"], "a label is missing"),
        (["token", "1", "--file", "x"], "or --file"),
        (["--file", "{}"], "line 1"),
    ],
)
def test_the_command_says_what_it_expected(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "wrong"
    path.write_text("no json")
    given = [str(path) if argument == "{}" else argument for argument in arguments]
    assert main(["feedback", "--url=127.0.0.1:1", *given]) == 1
    assert said in capsys.readouterr().err
