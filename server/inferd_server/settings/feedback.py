"""The settings of prediction tokens and of the labels that come back for them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferd_server.settings.section import Count, Section

Age = Annotated[float, Field(ge=1, le=31_536_000)]
"""Seconds, up to a year."""


class FeedbackSettings(Section):
    """Prediction tokens and true labels (docs/feedback.md)."""

    feedback_keys: Annotated[tuple[str, ...], Field(max_length=8)] = Field(
        (),
        description="where the keys of prediction tokens are, with commas between: file:PATH, "
        "env:NAME, or command:WORDS, whose output is the key; the first signs, all are accepted; "
        "empty: a random one, whose tokens do not survive a restart",
    )
    feedback_max_age_s: Age = Field(
        604_800.0, description="seconds after an answer for which its prediction token is accepted"
    )
    feedback_window_s: Age = Field(
        86_400.0, description="seconds of labels that a model's accuracy is told of"
    )
    feedback_window_labels: Count = Field(
        10_000, description="labels of a version, at most, that its accuracy is told of"
    )
    feedback_labels_per_second: Annotated[float, Field(ge=0, le=1e9)] = Field(
        10_000.0, description="labels that a process takes in a second; 0 is no limit"
    )
