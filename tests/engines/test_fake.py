"""The fake engine keeps the contract of real ones, and does what tests ask of it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Array, Engine, EngineError

from tests.engines.cases import Case
from tests.engines.contract import EngineContract
from tests.fakes.engine import FakeEngine


class TestFakeEngine(EngineContract):
    def open(self, case: Case, folder: Path) -> Engine:
        return FakeEngine(case.signature, case.compute)


def row(value: float) -> dict[str, Array]:
    return {"INPUT0": np.full((1, 4), value, dtype=np.float32)}


def test_a_held_run_goes_on_when_released() -> None:
    engine = FakeEngine()
    results: list[float] = []
    engine.hold()
    thread = threading.Thread(
        target=lambda: results.append(float(engine.run(row(3), {}, 1)["OUTPUT0"][0, 0]))
    )
    thread.start()
    assert engine.running.wait(10)
    assert results == []
    engine.release()
    thread.join(10)
    assert results == [6.0]


def test_it_fails_as_often_as_asked() -> None:
    engine = FakeEngine()
    engine.fail(EngineError("lost", fatal=True), times=2)
    for _ in range(2):
        with pytest.raises(EngineError, match="lost") as failure:
            engine.run(row(1), {}, 1)
        assert failure.value.fatal
    assert engine.run(row(1), {}, 1)["OUTPUT0"][0, 0] == 2


def test_it_remembers_batches_even_when_their_memory_is_reused() -> None:
    engine, inputs = FakeEngine(), row(1)
    engine.run(inputs, {}, 1)
    inputs["INPUT0"][:] = 9
    engine.warm(4)
    assert [batch.rows for batch in engine.batches] == [1]
    assert engine.batches[0].inputs["INPUT0"].max() == 1
    assert engine.warmed == [4]
