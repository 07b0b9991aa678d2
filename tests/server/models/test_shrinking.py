"""What large requests took is given back once only small ones come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError, EngineOptions, Signature, Tensor
from inferd_engines.onnx import open_onnx
from inferd_server.memory import give_back, resident_bytes
from inferd_server.models.shrinking import QUIET_S, ShrinkingEngine, Sizes, shrinking
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, OverlappingEngine
from tests.server.callers import Caller, job_of
from tests.server.models.bench import WITHIN, Bench

FLOAT = np.dtype(np.float32)
MIB = 1 << 20
FREE = Signature(
    (Tensor("INPUT0", FLOAT, (None, None), ("batch", "width")),),
    (Tensor("OUTPUT0", FLOAT, (None, None), ("batch", "width")),),
)


class Keeping(FakeEngine):
    """An engine that can give back what it keeps."""

    def __init__(self, signature: Signature = FREE, error: EngineError | None = None) -> None:
        super().__init__(signature)
        self.shrunk: list[int] = []
        """Bytes of the inputs that it shrank with."""
        self._error = error

    def shrink(self, inputs: Mapping[str, Array]) -> None:
        self.shrunk.append(sum(array.nbytes for array in inputs.values()))
        if self._error is not None:
            raise self._error


class Watched:
    """An engine that is watched, and what it was asked."""

    def __init__(self, error: EngineError | None = None) -> None:
        self.clock = FakeClock()
        self.engine = Keeping(error=error)
        self.trims = 0
        self._watched = shrinking(self.engine, self.clock, self._trim)

    def run(self, width: int) -> None:
        row = np.ones((1, width), np.float32)
        outputs = self._watched.run({"INPUT0": row}, {}, 1)
        np.testing.assert_array_equal(outputs["OUTPUT0"], row * 2)

    def _trim(self) -> None:
        self.trims += 1


def test_a_small_run_long_after_the_last_large_one_gives_memory_back_once() -> None:
    watched = Watched()
    for width in (1000, 10, 900, 10):
        watched.run(width)
    watched.clock.advance(QUIET_S)
    for _ in range(3):
        watched.run(10)
    assert (watched.engine.shrunk, watched.trims) == ([40], 1)


def test_while_large_runs_come_nothing_is_given_back() -> None:
    watched = Watched()
    for _ in range(5):
        watched.run(1000)
        watched.clock.advance(QUIET_S / 2)
        watched.run(10)
        watched.clock.advance(QUIET_S / 3)
    assert watched.engine.shrunk == []


def test_runs_that_are_neither_large_nor_small_change_nothing() -> None:
    sizes = Sizes()
    assert not sizes.over(1000, 0.0)
    assert not sizes.over(300, QUIET_S)
    assert sizes.over(250, QUIET_S)
    assert not sizes.over(250, 3 * QUIET_S)


def test_each_time_after_large_runs_memory_is_given_back() -> None:
    watched = Watched()
    for _ in range(3):
        watched.run(1000)
        watched.clock.advance(QUIET_S)
        watched.run(10)
    assert len(watched.engine.shrunk) == 3


def test_an_engine_that_cannot_shrink_goes_on_and_is_not_asked_again() -> None:
    watched = Watched(EngineError("there is no arena"))
    for _ in range(2):
        watched.run(1000)
        watched.clock.advance(QUIET_S)
        watched.run(10)
    assert (len(watched.engine.shrunk), watched.trims) == (1, 0)


def test_an_engine_that_is_lost_while_it_shrinks_is_lost() -> None:
    watched = Watched(EngineError("gone", fatal=True))
    watched.run(1000)
    watched.clock.advance(QUIET_S)
    with pytest.raises(EngineError, match="gone"):
        watched.run(10)


def test_an_engine_that_keeps_nothing_is_left_alone() -> None:
    for engine in (FakeEngine(), OverlappingEngine()):
        assert shrinking(engine, FakeClock(), give_back) is engine


@pytest.mark.parametrize(("signature", "watched"), [(FREE, True), (DOUBLING, False)])
def test_models_of_one_small_shape_are_not_watched(
    signature: Signature, watched: bool, tmp_path: Path
) -> None:
    engine = Keeping(signature)
    bench = Bench(tmp_path, lambda path, options: engine)
    bench.add("m", 1, yaml="warm_up: []\nmax_batch_size: 8\n")
    bench.repository.load("m")
    handle = bench.repository.resolve("m", "")
    for rows in (8, 1):
        caller = Caller()
        job = job_of(handle.arena, [1.0] * rows, caller, arrived=bench.clock())
        assert handle.queue.submit(job)
        assert caller.wait().outputs
        bench.clock.advance(QUIET_S)
    assert bool(engine.shrunk) == watched
    assert bench.repository.close(WITHIN)


def widening() -> ModelProto:
    """INPUT0 FP32 [n] times a row of 1,024, summed again: a run needs 4 KiB for each element."""
    nodes = [
        helper.make_node("Unsqueeze", ["INPUT0", "one"], ["column"]),
        helper.make_node("Mul", ["column", "row"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["high"]),
        helper.make_node("ReduceSum", ["high", "one"], ["OUTPUT0"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.ones((1, 1024), np.float32), "row"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    ends = [[models.tensor(name, "FP32", ("n",))] for name in ("INPUT0", "OUTPUT0")]
    return models.model(nodes, *ends, constants)


def test_the_memory_of_a_large_run_goes_back_to_the_system(tmp_path: Path) -> None:
    path = models.save(widening(), tmp_path / "model.onnx")
    clock = FakeClock()
    engine = ShrinkingEngine(open_onnx(path, EngineOptions(threads=1)), clock, give_back)
    small, large = np.ones(4, np.float32), np.ones(50_000, np.float32)
    engine.run({"INPUT0": small}, {}, 1)
    give_back()
    before = resident_bytes()
    engine.run({"INPUT0": large}, {}, 1)
    assert resident_bytes() - before > 150 * MIB
    clock.advance(QUIET_S)
    assert engine.run({"INPUT0": small}, {}, 1)["OUTPUT0"].tolist() == [1024.0] * 4
    assert resident_bytes() - before < 30 * MIB
    engine.close()
