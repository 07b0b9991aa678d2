"""What a trial inference says of its model: a classifier of faults, a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    InferdError,
    InvalidInput,
    ResourceExhausted,
    Unavailable,
)


class Outcome(Enum):
    """How a trial ended."""

    OK = "ok"
    SERVED = "served"
    """Callers were answered meanwhile, which says as much."""
    FAILED = "failed"
    LATE = "late"
    """No answer in time, and none to anybody else."""
    BUSY = "busy"
    """It could not be tried, which says nothing of the model."""
    UNFIT = "unfit"
    """The model does not take zeros, and is not tried."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a model version after a round of trials."""

    model: str
    version: int
    outcome: Outcome
    why: str = ""


def judge(error: InferdError | None, proven: bool) -> Outcome:
    """Tell what the answer to a trial means.

    Args:
        error: that it was answered with; None: with outputs.
        proven: the model has run on zeros before.
    """
    if error is None:
        return Outcome.OK
    if isinstance(error, DeadlinePassed):
        return Outcome.LATE
    if isinstance(error, ResourceExhausted | Unavailable | Cancelled):
        # Bounds, and what is known without a trial.
        return Outcome.BUSY
    refused = isinstance(error, InvalidInput) and error.reason != "QUARANTINED"
    return Outcome.FAILED if proven and not refused else Outcome.UNFIT
