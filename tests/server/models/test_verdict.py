"""What the answer to a trial says of its model."""

from __future__ import annotations

import pytest
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    InvalidInput,
    ModelNotReady,
    QueueFull,
    WorkerLost,
)
from inferd_server.models.health_check import TrialOutcome, judge


@pytest.mark.parametrize(
    ("error", "proven", "expected"),
    [
        (None, False, TrialOutcome.OK),
        (EngineFailure(), True, TrialOutcome.FAILED),
        (EngineFailure(), False, TrialOutcome.UNFIT),
        (InvalidInput("such a value"), True, TrialOutcome.UNFIT),
        (InvalidInput("refused", reason="QUARANTINED"), True, TrialOutcome.FAILED),
        (DeadlinePassed("late"), True, TrialOutcome.LATE),
        (QueueFull("full"), True, TrialOutcome.BUSY),
        (WorkerLost("gone"), True, TrialOutcome.BUSY),
        (ModelNotReady("gone"), True, TrialOutcome.BUSY),
        (HandleRetired("gone"), True, TrialOutcome.BUSY),
        (Cancelled("gone"), True, TrialOutcome.BUSY),
    ],
)
def test_only_faults_of_the_model_itself_are_held_against_it(
    error: InferdError | None, proven: bool, expected: TrialOutcome
) -> None:
    assert judge(error, proven) is expected
