"""What a trial of rows costs, and what it says when it was not allowed to cost more."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import EngineError, EngineOptions, Signature, Tensor
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_values import ModelFacts
from inferd_server.models.row_independence import Budget, RowTrial
from inferd_server.models.row_trials import RowTrials
from inferd_server.models.row_verdict import Finding, RowVerdict

from tests import models
from tests.fakes.engine import DOUBLING, FakeEngine

NOTHING = ModelFacts()
MIB = 1 << 20


def digest() -> str:
    return "d1"


def wide(elements: int, kind: type = np.float32) -> Signature:
    """Rows of so many elements, of which one comes back."""
    dtype = np.dtype(kind)
    return Signature(
        (Tensor("INPUT0", dtype, (None, elements), ("batch", "")),),
        (Tensor("OUTPUT0", dtype, (None, 1), ("batch", "")),),
    )


class Dear(FakeEngine):
    """Each run takes time and memory by its rows."""

    def __init__(self, signature: Signature, seconds: float = 0.0, memory: int = 0) -> None:
        super().__init__(signature, lambda inputs: {"OUTPUT0": inputs["INPUT0"][:, :1] * 2})
        self.now = 0.0
        self.resident = self.peak = self.peak_of_a_row = 0
        self._seconds = seconds
        self._memory = memory
        self.sizes: list[int] = []

    def run(self, inputs, outputs, rows):  # type: ignore[no-untyped-def]
        self.sizes.append(rows)
        self.now += self._seconds * rows
        self.resident = max(self.resident, self._memory * rows)
        self.peak = max(self.peak, self.peak_of_a_row * rows)
        # Its memory of all inputs is not wanted here.
        self.batches.clear()
        return super().run(inputs, outputs, rows)

    def verdict(self, **budget: float) -> RowVerdict:
        given = Budget(lambda: self.now, lambda: self.resident, lambda: self.peak, **budget)  # type: ignore[arg-type]
        return RowTrial(self, NOTHING, 32, given).verdict()


def test_a_quick_model_is_tried_in_batches_of_several_sizes() -> None:
    engine = Dear(DOUBLING)
    verdict = engine.verdict()
    assert verdict.finding is Finding.INDEPENDENT
    assert set(engine.sizes) == {1, 2, 3, 5, 32}
    assert f"{verdict.runs} runs" in verdict.reason
    assert "batches of 2, 3, 5 and 32" in verdict.reason
    assert "not tried" not in verdict.reason


def test_a_slow_model_is_tried_in_small_batches_and_the_rest_is_named() -> None:
    engine = Dear(DOUBLING, seconds=0.1)
    verdict = engine.verdict(most_s=3.0)
    assert verdict.finding is Finding.INDEPENDENT
    assert max(engine.sizes) == 2
    assert verdict.reason.endswith(
        "; not tried: batches of 3, 5 and 32, 3 rows of other values, some neighbours"
    )


def test_a_model_that_takes_too_long_for_any_trial_is_untried() -> None:
    engine = Dear(DOUBLING, seconds=20.0)
    verdict = engine.verdict(least_s=30.0)
    assert verdict.finding is Finding.UNTRIED
    assert verdict.reason == "the trial was not over after 30 s"
    assert len(engine.sizes) < 5


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.float16])
def test_batches_keep_to_the_budget_in_bytes(kind: type) -> None:
    row = MIB // np.dtype(kind).itemsize
    engine = Dear(wide(row, kind))
    verdict = engine.verdict(input_bytes=7 * MIB)
    assert verdict.finding is Finding.INDEPENDENT
    assert verdict.fitting == 7
    assert max(engine.sizes) == 7
    assert "batches up to 32" in verdict.reason


def test_rows_of_which_no_two_fit_are_not_even_drawn() -> None:
    engine = Dear(wide(1 << 40))
    verdict = engine.verdict()
    assert (verdict.finding, engine.sizes) == (Finding.UNTRIED, [])
    assert f"two rows of inputs take {2 << 42} bytes" in verdict.reason


def test_runs_that_take_much_memory_end_the_trial_after_one_row() -> None:
    engine = Dear(wide(MIB), memory=900 * MIB)
    verdict = engine.verdict(memory=1024 * MIB)
    assert (verdict.finding, set(engine.sizes)) == (Finding.UNTRIED, {1})
    assert "a run of one row takes 900 MiB of memory" in verdict.reason


def test_memory_bounds_the_rows_of_a_batch() -> None:
    engine = Dear(wide(MIB), memory=200 * MIB)
    verdict = engine.verdict(memory=1024 * MIB)
    assert verdict.finding is Finding.INDEPENDENT
    assert (verdict.fitting, max(engine.sizes)) == (5, 5)


def test_memory_that_a_run_gave_back_itself_counts_too() -> None:
    engine = Dear(wide(MIB), memory=10 * MIB)
    engine.peak_of_a_row = 300 * MIB
    verdict = engine.verdict(memory=1024 * MIB)
    assert (verdict.fitting, max(engine.sizes)) == (3, 3)


def test_what_a_trial_took_is_given_back() -> None:
    class Shrinks(Dear):
        shrunk = 0

        def shrink(self, inputs: dict[str, np.ndarray]) -> None:
            assert len(inputs["INPUT0"]) == 1
            self.shrunk += 1

    engine = Shrinks(wide(MIB), memory=100 * MIB)
    trials = RowTrials(lambda: 0.0, resident=lambda: engine.resident, peak=lambda: 0)
    assert trials.verdict(engine, NOTHING, 8, None, digest).finding is Finding.INDEPENDENT
    assert engine.shrunk == 1


def test_the_real_engine_shrinks_after_large_runs(tmp_path: Path) -> None:
    path = models.save(models.free_dims(), tmp_path / "model.onnx")
    engine = open_onnx(path, EngineOptions(threads=1))
    engine.shrink({"INPUT0": np.zeros((1, 4), np.float32)})
    with pytest.raises(EngineError, match="is missing"):
        engine.shrink({})
    engine.close()
    engine.shrink({})


def test_own_rows_are_tried_where_others_fail() -> None:
    def compute(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not np.isin(inputs["INPUT0"][:, 0], (41.5, 42.5)).all():
            raise EngineError("unknown category")
        return {"OUTPUT0": inputs["INPUT0"] * 2}

    engine = FakeEngine(compute=compute)
    own = {"INPUT0": np.repeat(np.array([[41.5], [42.5]], np.float32), 4, axis=1)}
    budget = Budget(lambda: 0.0, lambda: 0, lambda: 0)
    assert RowTrial(engine, NOTHING, 32, budget).verdict().finding is Finding.UNTRIED
    assert RowTrial(engine, NOTHING, 32, budget, own).verdict().finding is Finding.INDEPENDENT


class Kept:
    """Trials whose verdicts are kept in a folder, of a model that counts its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs(
        self, digest: str = "d1", version: str = "0", most: int = 32, name: str = "fake/numpy"
    ) -> int:
        """Start anew and return how often the engine ran."""
        engine = FakeEngine(name=name)
        engine.version = version
        trials = RowTrials(lambda: 0.0, self.folder)
        verdict = trials.verdict(engine, NOTHING, most, None, lambda: digest)
        assert verdict.finding is Finding.INDEPENDENT
        return len(engine.batches)


def test_a_second_start_does_not_try_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "made" / "anew")
    assert kept.runs() > 50
    assert kept.runs() == 0
    (file,) = (tmp_path / "made" / "anew").iterdir()
    held = json.loads(file.read_text())
    assert held["finding"] == "independent"
    assert (held["engine"], held["version"], held["digest"]) == ("fake/numpy", "0", "d1")


@pytest.mark.parametrize(
    "other", [{"digest": "d2"}, {"version": "1"}, {"most": 8}, {"name": "fake/gpu"}]
)
def test_another_file_engine_version_or_size_is_tried(
    tmp_path: Path, other: dict[str, str]
) -> None:
    kept = Kept(tmp_path)
    kept.runs()
    assert kept.runs(**other) > 50  # type: ignore[arg-type]


def test_without_a_digest_nothing_is_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.runs(digest="") > 50
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"finding": 1, "reason": "", "runs": 0}'])
def test_a_damaged_verdict_is_tried_again_and_mended(tmp_path: Path, content: str) -> None:
    kept = Kept(tmp_path)
    kept.runs()
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert kept.runs() > 50
    assert kept.runs() == 0


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    kept = Kept(file / "below")
    assert kept.runs() > 50
    assert kept.runs() > 50
    assert file.read_text() == "no folder"


def test_what_could_not_be_tried_is_tried_at_the_next_start(tmp_path: Path) -> None:
    def refused() -> int:
        engine = FakeEngine()
        engine.fail(EngineError("no memory"), times=1000)
        trials = RowTrials(lambda: 0.0, tmp_path)
        verdict = trials.verdict(engine, NOTHING, 32, None, digest)
        assert verdict.finding is Finding.UNTRIED
        return len(engine.batches)

    assert refused() > 0
    assert refused() > 0


def test_a_trial_that_ran_out_of_time_is_not_repeated(tmp_path: Path) -> None:
    def tried() -> int:
        engine, ticks = FakeEngine(), itertools.count(0.0, 20.0)
        verdict = RowTrials(ticks.__next__, tmp_path).verdict(engine, NOTHING, 32, None, digest)
        assert verdict.finding is Finding.UNTRIED
        return len(engine.batches)

    assert tried() > 0
    assert tried() == 0
