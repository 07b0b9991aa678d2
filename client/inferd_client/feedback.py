"""True labels for predictions: as people write them, and as they travel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from inferd.v1 import feedback_pb2 as messages

from inferd_client.errors import FeedbackRefused, InvalidResponse
from inferd_client.operations import Operation
from inferd_client.sendable import sendable

Label: TypeAlias = int | str | None
"""Index or name of a class; None: nothing is known of the row."""
Labels: TypeAlias = Label | Sequence[Label]
"""Of each row of an answer; one alone is that of an answer with one row."""


@dataclass(frozen=True, slots=True)
class FeedbackOutcome:
    """What became of one token."""

    rows: int
    """That count."""
    reason: str = ""
    """FORGED, LATE, DOUBLED, UNKNOWN_MODEL, MODEL_NOT_READY or BAD_LABEL; empty: it counts."""
    message: str = ""


def one(token: str, label: Labels) -> Operation[int]:
    """Tell what was true of one answer; its answer is the number of rows that count.

    Raises:
        InvalidInput: the token or a label cannot be sent.
    """

    def read(response: messages.FeedbackResponse) -> int:
        (outcome,) = _outcomes(response, 1)
        if outcome.reason:
            raise FeedbackRefused(outcome.message, details={"reason": outcome.reason})
        return outcome.rows

    return Operation("Feedback", _message([(token, label)]), read, repeatable=False)


def many(pairs: Iterable[tuple[str, Labels]]) -> Operation[tuple[FeedbackOutcome, ...]]:
    """Tell what was true of several answers.

    Raises:
        InvalidInput: a token or a label cannot be sent.
    """
    message = _message(pairs)
    count = len(message.predictions)
    return Operation("Feedback", message, lambda got: _outcomes(got, count), repeatable=False)


@sendable
def _message(pairs: Iterable[tuple[str, Labels]]) -> messages.FeedbackRequest:
    return messages.FeedbackRequest(
        predictions=[
            messages.PredictionLabels(token=token, labels=map(_label, _each(labels)))
            for token, labels in pairs
        ]
    )


def _each(labels: Any) -> Sequence[Any]:
    """Return labels as a sequence; numpy's arrays and numbers are taken, too."""
    plain = labels.tolist() if hasattr(labels, "tolist") else labels
    return plain if isinstance(plain, list | tuple) else (plain,)


def _label(label: Label) -> messages.TrueLabel:
    if label is None:
        return messages.TrueLabel()
    if isinstance(label, str):
        return messages.TrueLabel(name=label)
    return messages.TrueLabel(index=index(label))


def _outcomes(response: messages.FeedbackResponse, count: int) -> tuple[FeedbackOutcome, ...]:
    if len(response.results) != count:
        raise InvalidResponse(f"{len(response.results)} results came for {count} tokens")
    return tuple(FeedbackOutcome(each.rows, each.reason, each.message) for each in response.results)
