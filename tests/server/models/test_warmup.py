"""Warming: what is tried on a model before it serves, and what becomes of one that takes none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError
from inferd_engines.onnx import open_onnx
from inferd_server.models.batch_memory import MemoryGauge
from inferd_server.models.entries import State
from inferd_server.models.version import Handle

from tests import models
from tests.fakes.engine import FakeEngine, double
from tests.mixing import built, weight
from tests.server.models.bench import Bench

LABEL = weight("hundred", 100, np.int64)
INTEGERS = {"given": "INT64", "answer": ("INT64", ("batch", 4))}


def modulo() -> models.ModelProto:
    """100 modulo X: fails on a zero."""
    return built([("Mod", "hundred X", "Y")], LABEL, **INTEGERS)  # type: ignore[arg-type]


def choosy() -> models.ModelProto:
    """100 modulo X (X - 1): fails on zeros and on ones."""
    return built(
        [("Sub", "X one_id", "less"), ("Mul", "X less", "both"), ("Mod", "hundred both", "Y")],
        LABEL,
        weight("one_id", 1, np.int64),
        **INTEGERS,  # type: ignore[arg-type]
    )


def loaded(folder: Path, proto: models.ModelProto, yaml: str = "") -> tuple[Bench, Handle]:
    bench = Bench(models.repository(folder, {"m": proto}, {"m": yaml}), open_onnx)
    assert bench.repository.load_all() == frozenset()
    return bench, bench.repository.resolve("m", "")


def test_a_model_that_takes_no_zeros_is_warmed_with_ones(tmp_path: Path) -> None:
    bench, handle = loaded(tmp_path, modulo())
    assert "modulo by zero" in handle.warm_reason
    assert handle.warm_reason.startswith("a run on zeros failed: ")
    assert handle.warm_reason.endswith("; ones were taken instead")
    assert not handle.takes_zeros
    bench.close()


@pytest.mark.parametrize("yaml", ["", "max_batch_size: 0", "warm_up: [1, 2]"])
def test_a_model_that_takes_neither_zeros_nor_ones_serves_and_the_reason_is_kept(
    yaml: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        bench, handle = loaded(tmp_path, choosy(), yaml)
    assert bench.states == ["m/1 READY"]
    assert "a run on zeros failed: " in handle.warm_reason
    assert "not warmed" in [record.message for record in caplog.records]
    bench.close()


def test_own_data_warm_a_model_and_are_the_rows_that_are_tried(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=np.array([[7, 8, 9, 10], [11, 12, 13, 14]]))
    models.repository(tmp_path, {"m": choosy()})
    (tmp_path / "rows.npz").rename(tmp_path / "m" / "rows.npz")
    bench, handle = loaded(tmp_path, choosy(), "warm_up: rows.npz")
    assert handle.warm_reason == ""
    assert handle.bounds.max_batch_size == 32
    assert handle.batch_reason.startswith("rows kept every bit")
    bench.close()


def test_own_data_of_a_model_without_a_batch_are_one_request(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    np.savez(tmp_path / "m" / "x.npz", INPUT0=np.ones((3, 4), np.float64))
    bench, handle = loaded(tmp_path, models.no_batch(), "warm_up: x.npz")
    assert handle.warm_reason == ""
    bench.close()


def test_own_text_is_taken_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    np.savez(tmp_path / "m" / "x.npz", INPUT0=np.array([["Zürich", "b"]]))
    bench, handle = loaded(tmp_path, models.strings(), "warm_up: x.npz")
    assert (handle.warm_reason, handle.bounds.max_batch_size) == ("", 32)
    bench.close()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "lacks an array; INPUT0 were expected"),
        ({"INPUT0": np.zeros((2, 3))}, "'INPUT0' has shape [2, 3]; [-1, 4] was expected"),
        ({"INPUT0": np.zeros(4)}, "'INPUT0' has shape [4]; [-1, 4] was expected"),
        ({"INPUT0": np.zeros((0, 4))}, "'INPUT0' is empty"),
        ({"INPUT0": np.full((1, 4), "a")}, "'INPUT0' is <U1; FP32 was expected"),
    ],
)
def test_own_data_that_do_not_fit_are_a_mistake_that_is_named(
    tmp_path: Path, arrays: Mapping[str, Array], sentence: str
) -> None:
    repository = models.repository(tmp_path, {"m": models.scale(2)}, {"m": "warm_up: x.npz"})
    np.savez(repository / "m" / "x.npz", **arrays)  # type: ignore[arg-type]
    bench = Bench(repository, open_onnx)
    assert bench.repository.load_all() == {"m"}
    (reason,) = bench.reasons
    assert reason.startswith("warm_up names x.npz, which ")
    assert sentence in reason
    bench.close()


def test_own_data_that_are_not_there_are_a_mistake_that_is_named(tmp_path: Path) -> None:
    repository = models.repository(tmp_path, {"m": models.scale(2)}, {"m": "warm_up: x.npz"})
    bench = Bench(repository, open_onnx)
    assert bench.repository.load_all() == {"m"}
    assert "warm_up names x.npz, which cannot be used: " in bench.reasons[0]
    bench.close()


class Refusing(FakeEngine):
    """Takes nothing until it is told to."""

    def __init__(self, *, fatal: bool = False) -> None:
        self.refuses = True
        super().__init__(compute=self._answer)
        self._fatal = fatal

    def warm(self, rows: int) -> None:
        self.run({"INPUT0": np.zeros((rows, 4), np.float32)}, {}, rows)

    def _answer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.refuses:
            raise EngineError("not these", fatal=self._fatal)
        return double(inputs)


def test_a_model_that_could_not_be_tried_at_all_serves_one_request_at_a_time(
    bench: Bench,
) -> None:
    engine = Refusing()
    bench.engines._make = lambda: engine
    bench.add("m", 1)
    bench.repository.load("m")
    handle = bench.repository.resolve("m", "")
    assert handle.bounds.max_batch_size == 0
    assert handle.batch_reason.startswith("rows could not be tried together: not these")
    engine.refuses = False
    assert bench.states == ["m/1 READY"]


def test_a_model_that_could_not_be_tried_batches_if_it_says_so_and_the_log_warns(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.engines._make = Refusing
    bench.add("m", 1, yaml="max_batch_size: 8")
    with caplog.at_level(logging.WARNING):
        bench.repository.load("m")
    handle = bench.repository.resolve("m", "")
    assert handle.bounds.max_batch_size == 8
    (warning,) = [r for r in caplog.records if r.message.startswith("requests share runs as asked")]
    assert "rows could not be tried together: not these" in warning.why  # type: ignore[attr-defined]


def test_an_engine_that_is_lost_while_it_is_warmed_serves_nobody(bench: Bench) -> None:
    bench.engines._make = lambda: Refusing(fatal=True)
    bench.add("m", 1, yaml="max_batch_size: 0")
    assert bench.repository.load_all() == {"m"}
    assert [entry.state for entry in bench.repository.entries()] == [State.UNAVAILABLE]


def test_a_model_whose_rows_are_larger_than_any_queue_is_refused_alone(tmp_path: Path) -> None:
    huge = models.identity("FP32", dims=("N", 600_000_000))
    repository = models.repository(tmp_path, {"huge": huge, "m": models.scale(2)})
    bench = Bench(repository, open_onnx)
    assert bench.repository.load_all() == {"huge"}
    assert bench.states == ["huge/1 UNAVAILABLE", "m/1 READY"]
    assert "one row take 2400000000 bytes, and max_queue_bytes is" in bench.reasons[0]
    bench.close()


def test_rows_larger_than_a_message_are_neither_tried_nor_warmed(tmp_path: Path) -> None:
    large = models.identity("FP32", dims=("N", 500_000))
    bench, handle = loaded(tmp_path, large)
    assert handle.bounds.max_batch_size == 0
    assert "two rows of inputs take 4000000 bytes" in handle.batch_reason
    assert handle.warm_reason == "not warmed: one row is larger than a message may be"
    bench.close()


class Hungry(FakeEngine):
    """Keeps the memory of its largest run, and is killed where there is none."""

    LIMIT = 600 << 20

    def __init__(self, a_row: int) -> None:
        super().__init__(name="fake/CPUExecutionProvider")
        self.held = 0
        self._a_row = a_row
        self.gauge = MemoryGauge(
            lambda: self.held, lambda: self.held, lambda: self.LIMIT - self.held
        )

    def warm(self, rows: int) -> None:
        super().warm(rows)
        self._take(rows)

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        self._take(rows)
        return super().run(inputs, outputs, rows)

    def _take(self, rows: int) -> None:
        self.held = max(self.held, self._a_row * rows)
        assert self.held <= self.LIMIT, "killed"


@pytest.mark.parametrize(
    ("mib", "yaml", "rows"),
    [(1, "", 32), (32, "", 8), (32, "max_batch_size: 32", 8), (32, "max_batch_size: 4", 4)],
)
def test_batches_are_no_larger_than_the_memory_has_room_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mib: int, yaml: str, rows: int
) -> None:
    engine = Hungry(mib << 20)
    bench = Bench(tmp_path, lambda *_: engine, memory=engine.gauge)
    bench.add("m", 1, yaml=yaml)
    assert bench.repository.load_all() == frozenset()
    bounds = bench.repository.resolve("m", "").bounds
    assert (bounds.max_batch_size, bounds.limits.max_rows) == (rows, rows)
    told = [r for r in caplog.records if r.message == "larger batches would use up the memory"]
    assert [vars(record)["lowered_to"] for record in told] == ([8] if rows == 8 else [])
    bench.close()


@pytest.mark.parametrize(("limit", "rows"), [(64, 32), (8, 8), (1, 0)])
def test_batches_of_a_size_that_ended_a_worker_are_not_formed_again(
    bench: Bench, limit: int, rows: int
) -> None:
    bench.add("m", 1)
    bench.loader.limit_batches({("m", 1): limit, ("m", 2): 1, ("n", 1): 1})
    bench.repository.load("m")
    bounds = bench.repository.resolve("m", "").bounds
    assert (bounds.max_batch_size, bounds.limits.max_rows) == (rows, max(1, rows))


def test_a_model_of_which_two_rows_find_no_memory_runs_one_request_at_a_time(
    tmp_path: Path,
) -> None:
    engine = Hungry(400 << 20)
    bench = Bench(tmp_path, lambda *_: engine, memory=engine.gauge)
    bench.add("m", 1)
    assert bench.repository.load_all() == frozenset()
    handle = bench.repository.resolve("m", "")
    assert handle.bounds.max_batch_size == 0
    assert handle.batch_reason == "there is no memory for runs of two rows"
    bench.close()


def test_batches_are_no_larger_than_what_fits_a_message(tmp_path: Path) -> None:
    wide = models.identity("FP32", dims=("N", 100_000))
    bench, handle = loaded(tmp_path, wide)
    assert handle.bounds.max_batch_size == 32
    assert handle.bounds.limits.max_rows == 2
    bench.close()
