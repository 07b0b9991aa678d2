"""Which errors of an engine end the process, and which do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_engines.engine import Engine, EngineError, EngineOptions, Overlapping
from inferd_server.worker.fatal import EndsWithEngine

from tests.engines.tensorrt.bench import Bench as TensorRTBench
from tests.fakes.engine import DOUBLING, FakeEngine, OverlappingEngine, double

ROW = {"INPUT0": np.ones((1, 4), np.float32)}
GONE = EngineError("the device is gone", fatal=True)


class Ended(BaseException):
    """Stands for the end of the process."""


def end(error: EngineError) -> None:
    raise Ended(str(error))


def open_guarded(engine: Engine) -> Engine:
    return EndsWithEngine(lambda _path, _options: engine, end)(Path("m"), EngineOptions())


def test_a_fatal_error_of_a_run_ends_the_process_and_another_one_does_not() -> None:
    engine = FakeEngine()
    guarded = open_guarded(engine)
    engine.fail(EngineError("such a value"))
    with pytest.raises(EngineError, match="such a value"):
        guarded.run(ROW, {}, 1)
    assert guarded.run(ROW, {}, 1)["OUTPUT0"].tolist() == [[2.0] * 4]
    engine.fail(GONE)
    with pytest.raises(Ended, match="the device is gone"):
        guarded.run(ROW, {}, 1)
    assert not engine.closed


def test_a_fatal_error_of_warming_up_ends_the_process() -> None:
    class Cold(FakeEngine):
        def warm(self, rows: int) -> None:
            raise GONE

    with pytest.raises(Ended):
        open_guarded(Cold()).warm(1)


@pytest.mark.parametrize(("fatal", "ends"), [(True, Ended), (False, EngineError)])
def test_a_fatal_error_of_opening_ends_the_process(fatal: bool, ends: type) -> None:
    def refuse(_path: Path, _options: EngineOptions) -> Engine:
        raise EngineError("no", fatal=fatal)

    with pytest.raises(ends):
        EndsWithEngine(refuse, end)(Path("m"), EngineOptions())


def test_a_sticky_error_of_tensorrt_ends_the_process_and_frees_nothing() -> None:
    bench = TensorRTBench()
    engine = bench.open(DOUBLING, double)
    guarded = open_guarded(engine)
    bench.driver.sticky = "cuStreamSynchronize failed: an illegal memory access was encountered"
    with pytest.raises(Ended, match="illegal memory access"):
        guarded.run(ROW, {}, 1)
    bench.driver.sticky = ""
    engine.close()
    bench.close()


@pytest.mark.parametrize("half", ["begin", "finish"])
def test_a_fatal_error_of_either_half_of_a_run_ends_the_process(half: str) -> None:
    engine = OverlappingEngine()
    guarded = open_guarded(engine)
    assert isinstance(guarded, Overlapping)
    assert guarded.finish(guarded.begin(ROW, 1), {})["OUTPUT0"].tolist() == [[2.0] * 4]
    if half == "begin":
        engine.refusals.append(GONE)
    else:
        engine.fail(GONE)
    with pytest.raises(Ended):
        guarded.finish(guarded.begin(ROW, 1), {})


def test_an_engine_without_halves_gets_none() -> None:
    assert not isinstance(open_guarded(FakeEngine()), Overlapping)
