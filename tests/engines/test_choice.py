"""Which of several engines serves, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_engines.choice import FirstOf
from inferd_engines.engine import Engine, EngineError, EngineOptions, PlanState
from inferd_engines.tensorrt.errors import DeviceMissing, PlanMissing, PlanRefused

from tests.engines.cases import Case
from tests.engines.contract import EngineContract
from tests.fakes.engine import FakeEngine

NOWHERE, OPTIONS = Path("model.onnx"), EngineOptions()


class Refusing:
    """Opens nothing."""

    def __init__(
        self, text: str, *, fatal: bool = False, kind: type[EngineError] = EngineError
    ) -> None:
        self.error = kind(text, fatal=fatal)
        self.asked = 0

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        self.asked += 1
        raise self.error


class TestInstead(EngineContract):
    """An engine in the place of another one keeps the contract, but has a reason."""

    def open(self, case: Case, folder: Path) -> Engine:
        engine = FakeEngine(case.signature, case.compute)
        first = FirstOf([("a", Refusing("no")), ("b", lambda path, options: engine)])
        return first(NOWHERE, OPTIONS)

    def test_it_says_what_serves(self, tmp_path: Path) -> None:
        from tests.engines.cases import NO_BATCH

        engine = self.open(NO_BATCH, tmp_path)
        assert engine.name == "fake/numpy"
        assert engine.reason == "a: no"


def test_the_first_that_can_serves_and_nobody_else_is_asked() -> None:
    engine, later = FakeEngine(), Refusing("no")
    first = FirstOf([("a", lambda path, options: engine), ("b", later)])
    assert first(NOWHERE, OPTIONS) is engine
    assert engine.reason == ""
    assert later.asked == 0


@pytest.mark.parametrize(
    ("refusals", "state"),
    [
        ([DeviceMissing], PlanState.FALLBACK),
        ([PlanMissing], PlanState.BUILDING),
        ([PlanRefused, EngineError], PlanState.FAILED),
        ([EngineError], PlanState.NONE),
    ],
)
def test_the_refusal_of_who_runs_plans_tells_where_the_plan_stands(
    refusals: list[type[EngineError]], state: PlanState
) -> None:
    openers = [("x", Refusing("no", kind=kind)) for kind in refusals]
    first = FirstOf([*openers, ("b", lambda path, options: FakeEngine())])
    assert first(NOWHERE, OPTIONS).plan_state is state


def test_every_refusal_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(reason="one core only")
    first = FirstOf(
        [
            ("TensorRT", Refusing("no driver")),
            ("CUDA", Refusing("not built in")),
            ("CPU", lambda path, options: engine),
        ]
    )
    opened = first(NOWHERE, OPTIONS)
    assert opened.reason == "TensorRT: no driver; CUDA: not built in; one core only"
    assert [record.why for record in caplog.records] == ["no driver", "not built in"]
    row = {"INPUT0": np.ones((1, 4), np.float32)}
    assert opened.run(row, {}, 1)["OUTPUT0"][0, 0] == 2


def test_none_that_can_is_an_error_with_every_reason() -> None:
    first = FirstOf([("a", Refusing("x")), ("b", Refusing("y"))])
    with pytest.raises(EngineError, match=r"^a: x; b: y$"):
        first(NOWHERE, OPTIONS)


def test_an_error_that_ends_the_process_is_not_passed_over() -> None:
    later = Refusing("no")
    first = FirstOf([("a", Refusing("illegal address", fatal=True)), ("b", later)])
    with pytest.raises(EngineError, match="illegal address"):
        first(NOWHERE, OPTIONS)
    assert later.asked == 0
