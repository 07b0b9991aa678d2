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
from inferd_server.models.health_check import Outcome, judge


@pytest.mark.parametrize(
    ("error", "proven", "expected"),
    [
        (None, False, Outcome.OK),
        (EngineFailure(), True, Outcome.FAILED),
        (EngineFailure(), False, Outcome.UNFIT),
        (InvalidInput("such a value"), True, Outcome.UNFIT),
        (InvalidInput("refused", reason="QUARANTINED"), True, Outcome.FAILED),
        (DeadlinePassed("late"), True, Outcome.LATE),
        (QueueFull("full"), True, Outcome.BUSY),
        (WorkerLost("gone"), True, Outcome.BUSY),
        (ModelNotReady("gone"), True, Outcome.BUSY),
        (HandleRetired("gone"), True, Outcome.BUSY),
        (Cancelled("gone"), True, Outcome.BUSY),
    ],
)
def test_only_faults_of_the_model_itself_are_held_against_it(
    error: InferdError | None, proven: bool, expected: Outcome
) -> None:
    assert judge(error, proven) is expected
