"""Trial inferences on real queues and instances, with fake engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError
from inferd_engines.onnx import open_onnx
from inferd_server.batching.job import Job
from inferd_server.models import last_request
from inferd_server.models.health_check import (
    LEAST_S,
    SHARE,
    HealthChecks,
    TrialOutcome,
    TrialVerdict,
)
from inferd_server.monitoring.phases import Execution, Phases

from tests import models
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine, double
from tests.server.models.bench import WITHIN, Bench

BRIEF = 0.01


class Trials:
    """HealthChecks of a repository, and what they told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.told: list[TrialVerdict] = []
        self.counted: list[tuple[str, int, str]] = []
        self.checks = HealthChecks(
            bench.repository, FakeClock(), self.told.append, lambda *what: self.counted.append(what)
        )

    def round(self, seconds: float = WITHIN) -> list[TrialOutcome]:
        self.told.clear()
        self.checks.round(seconds)
        return [verdict.outcome for verdict in self.told]

    def serve(self) -> None:
        """A caller is answered."""
        phases = Phases(0.0, Execution(1, 0.0, 0.0, 0.0))
        self.bench.repository.resolve("m", "").statistics.succeeded(1, 0.0, 0.0, phases, 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def trials(bench: Bench) -> Trials:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.engines.last.batches.clear()
    return Trials(bench)


@pytest.fixture
def engine(trials: Trials) -> FakeEngine:
    return trials.bench.engines.last


def test_a_model_is_tried_with_one_row_of_zeros(trials: Trials, engine: FakeEngine) -> None:
    assert trials.round() == [TrialOutcome.OK]
    (batch,) = engine.batches
    assert batch.rows == 1
    assert batch.inputs["INPUT0"].tolist() == [[0.0] * 4]
    assert trials.counted == [("m", 1, "ok")]
    handle = trials.bench.repository.resolve("m", "")
    assert handle.statistics.read().success.count == 0
    assert handle.arena.rows == 0


def test_a_model_that_answers_callers_is_not_tried(trials: Trials, engine: FakeEngine) -> None:
    trials.round()
    trials.serve()
    assert trials.round() == [TrialOutcome.SERVED]
    assert len(engine.batches) == 1
    assert trials.round() == [TrialOutcome.OK]
    assert len(engine.batches) == 2


def test_an_engine_that_fails_is_told_and_one_that_recovered_too(
    trials: Trials, engine: FakeEngine
) -> None:
    engine.fail(EngineError("out of memory"))
    assert trials.round() == [TrialOutcome.FAILED]
    assert trials.round() == [TrialOutcome.OK]


def test_an_engine_that_does_not_answer_is_late_and_tried_once_until_it_does(
    trials: Trials, engine: FakeEngine
) -> None:
    engine.hold()
    assert trials.round(BRIEF) == [TrialOutcome.LATE]
    assert engine.running.wait(WITHIN)
    assert trials.round(BRIEF) == [TrialOutcome.LATE]
    engine.release()
    # The answer to the first trial, which is good whenever it comes.
    assert trials.round() == [TrialOutcome.OK]
    assert len(engine.batches) == 1
    assert trials.round() == [TrialOutcome.OK]
    assert len(engine.batches) == 2


def test_a_trial_that_waits_behind_callers_who_are_answered_is_not_late(
    trials: Trials, engine: FakeEngine
) -> None:
    engine.hold()
    running = trials.bench.submit(1.0)
    assert engine.running.wait(WITHIN)
    assert trials.round(BRIEF) == [TrialOutcome.LATE]
    trials.serve()
    assert trials.round(BRIEF) == [TrialOutcome.SERVED]
    engine.release()
    running.wait()


def test_a_model_that_takes_no_zeros_is_not_tried_again(bench: Bench) -> None:
    bench.add("m", 1, yaml="{max_batch_size: 0, warm_up: []}")
    bench.repository.load("m")
    trials, engine = Trials(bench), bench.engines.last
    engine.batches.clear()
    engine.fail(EngineError("no such token"))
    assert trials.round() == [TrialOutcome.UNFIT]
    assert trials.round() == []
    assert len(engine.batches) == 1


class OnlyThese(FakeEngine):
    """Takes rows of one kind, at load and later."""

    def __init__(self, wanted: float) -> None:
        super().__init__(compute=self._answer)
        self.wanted = wanted

    def warm(self, rows: int) -> None:
        self.run({"INPUT0": np.zeros((rows, 4), np.float32)}, {}, rows)

    def _answer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if not (inputs["INPUT0"] == self.wanted).all():
            raise EngineError("no such token")
        return double(inputs)


def test_a_model_that_takes_no_zeros_is_tried_with_the_last_request_that_it_was_sent(
    bench: Bench,
) -> None:
    bench.engines._make = lambda: OnlyThese(7)
    bench.add("m", 1)
    bench.repository.load("m")
    trials, engine = Trials(bench), bench.engines.last
    assert trials.round() == []
    assert engine.batches == []
    keep(bench, 7)
    assert trials.round() == [TrialOutcome.OK]
    (batch,) = engine.batches
    assert batch.inputs["INPUT0"].tolist() == [[7.0] * 4]
    # From now on it is known to take that.
    engine.fail(EngineError("out of memory"))
    assert trials.round() == [TrialOutcome.FAILED]
    assert trials.round() == [TrialOutcome.OK]


def test_a_last_request_that_the_model_refuses_says_nothing_and_the_next_one_is_tried(
    bench: Bench,
) -> None:
    bench.engines._make = lambda: OnlyThese(7)
    bench.add("m", 1)
    bench.repository.load("m")
    trials = Trials(bench)
    assert trials.round() == []
    keep(bench, 8)
    assert trials.round() == [TrialOutcome.UNFIT]
    assert trials.round() == []
    keep(bench, 7)
    assert trials.round() == [TrialOutcome.OK]


def test_large_requests_are_not_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_request, "LARGEST", 8)
    bench.engines._make = lambda: OnlyThese(7)
    bench.add("m", 1)
    bench.repository.load("m")
    trials = Trials(bench)
    assert trials.round() == []
    keep(bench, 7)
    assert trials.round() == []


def keep(bench: Bench, value: float) -> None:
    """Show a request to the model's handle, as the front does before it is queued."""
    handle = bench.repository.resolve("m", "")
    # Nothing could be tried of this model, so its rows are not batched.
    slot = handle.arena.reserve([(np.dtype(np.float32), (1, 4))], 1, 16)
    assert slot is not None
    assert handle.last_request is not None
    slot.inputs[0][...] = value
    handle.last_request.keep(slot)
    slot.free()


def test_a_model_without_room_says_nothing(trials: Trials) -> None:
    arena = trials.bench.repository.resolve("m", "").arena
    specs = [(np.dtype(np.float32), (4,))]
    most = trials.bench.repository.resolve("m", "").bounds.max_queue_rows
    rows = [arena.reserve(specs, 1, 16) for _ in range(most)]
    assert trials.round() == []
    for slot in rows:
        slot.free()
    assert trials.round() == [TrialOutcome.OK]


def test_what_is_not_loaded_or_runs_inline_is_not_tried(trials: Trials) -> None:
    trials.bench.repository.resolve("m", "").arrangement = "inline"
    assert trials.round() == []
    trials.bench.repository.unload("m")
    assert trials.round() == []


def test_a_reloaded_model_is_tried_anew(trials: Trials) -> None:
    first = trials.bench.engines.last
    first.hold()
    assert trials.round(BRIEF) == [TrialOutcome.LATE]
    assert first.running.wait(WITHIN)
    reload = threading.Thread(target=trials.bench.repository.reload, args=("m",))
    reload.start()
    trials.bench.await_changes(3)
    assert trials.round() == [TrialOutcome.OK]
    first.release()
    reload.join(WITHIN)
    assert not reload.is_alive()


def test_models_of_every_kind_are_tried(tmp_path: Path) -> None:
    kinds = {
        "fixed": models.identity("FP32", dims=("batch", 4)),
        "free": models.identity("INT64", dims=("batch", "size")),
        "text": models.identity("BYTES", dims=("batch", 1)),
        "flags": models.identity("BOOL", dims=(2, 3)),
    }
    bench = Bench(models.repository(tmp_path, kinds), open_onnx)
    assert bench.repository.load_all() == frozenset()
    trials = Trials(bench)
    assert trials.round() == [TrialOutcome.OK] * len(kinds)
    assert {model for model, _, _ in trials.counted} == set(kinds)
    bench.close()


MANY = 300
INTERVAL = 10.0


@pytest.fixture
def many(bench: Bench) -> Trials:
    for number in range(MANY):
        bench.add(f"m{number:03}", 1)
        bench.repository.load(f"m{number:03}")
    for engine in bench.engines.opened:
        engine.batches.clear()
    return Trials(bench)


@pytest.mark.slow
def test_trials_of_many_idle_models_cost_a_hundredth_of_a_core_in_turn(many: Trials) -> None:
    tried: list[str] = []
    rounds = 0
    while len(set(tried)) < MANY:
        assert many.round(INTERVAL)
        seconds = len(many.told) * LEAST_S
        assert seconds <= SHARE * INTERVAL + LEAST_S
        tried += [verdict.model for verdict in many.told]
        rounds += 1
    # Each had its turn before any had a second one.
    assert rounds == pytest.approx(MANY * LEAST_S / (SHARE * INTERVAL))
    assert len(tried) == MANY


def test_a_model_whose_runs_are_long_is_tried_as_rarely_as_they_are(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = trials.bench.repository.resolve("m", "")
    handle.engine = "onnxruntime/CPUExecutionProvider"
    monkeypatch.setattr("inferd_server.models.health_check.LEAST_S", 0.0)
    slow = Execution(1, 0.0, 0.0, 1.0)
    submit = handle.queue.submit

    def answer(job: Job) -> bool:
        job.finish({}, Phases(0.0, slow))
        return True

    monkeypatch.setattr(handle.queue, "submit", answer)
    tried = sum(len(trials.round(INTERVAL)) for _ in range(31))
    monkeypatch.setattr(handle.queue, "submit", submit)
    # A run of a second may be made in a hundred.
    assert tried <= 1 + 31 * INTERVAL * SHARE


def test_a_model_that_failed_its_trial_comes_first(many: Trials) -> None:
    engines = dict(zip((f"m{n:03}" for n in range(MANY)), many.bench.engines.opened, strict=True))
    engines["m000"].fail(EngineError("out of memory"))
    many.round(INTERVAL)
    assert TrialOutcome.FAILED in [verdict.outcome for verdict in many.told]
    many.round(INTERVAL)
    assert ("m000", TrialOutcome.OK) in [(verdict.model, verdict.outcome) for verdict in many.told]
