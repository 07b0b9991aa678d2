"""The method that takes true labels for predictions."""

from __future__ import annotations

from inferd.v1 import feedback_pb2 as messages

from inferd_server.errors import InvalidInput
from inferd_server.feedback.intake import FeedbackIntake, TrueLabel, Truth

MOST_TOKENS, MOST_LABELS = 1000, 10_000
"""Of one call."""


class Feedback:
    """Answers the calls. Blocks where Redis is asked; one call at a time."""

    def __init__(self, intake: FeedbackIntake) -> None:
        self._intake = intake

    def feedback(self, request: messages.FeedbackRequest) -> messages.FeedbackResponse:
        """Count labels, and say what became of each token.

        Raises:
            InvalidInput: there are none, or more than one call may bring.
            ResourceExhausted: more come than may.
        """
        tokens = len(request.predictions)
        labels = sum(len(each.labels) for each in request.predictions)
        if not tokens:
            raise InvalidInput("predictions is empty: tokens with labels were expected")
        if tokens > MOST_TOKENS or labels > MOST_LABELS:
            raise InvalidInput(
                f"{tokens} tokens with {labels} labels are too many for one call: "
                f"{MOST_TOKENS} tokens and {MOST_LABELS} labels may come"
            )
        truths = [
            Truth(p.token, [label_of(each) for each in p.labels]) for p in request.predictions
        ]
        return messages.FeedbackResponse(
            results=[
                messages.FeedbackResult(reason=o.reason, message=o.text, rows=o.rows)
                for o in self._intake.take(truths)
            ]
        )


def label_of(label: messages.TrueLabel) -> TrueLabel:
    """Return a label as a plain value."""
    kind = label.WhichOneof("label")
    if kind is None:
        return None
    return label.index if kind == "index" else label.name
