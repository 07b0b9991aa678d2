"""Faults: what an error means is what the device says, never what an earlier log line is."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from inferd_engines.engine import EngineError
from inferd_engines.tensorrt.errors import OutOfMemory, PlanRefused, TensorRTError
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of

from tests.device.standin import ILLEGAL_ADDRESS, INVALID_VALUE, LAUNCH_FAILED, UNKNOWN
from tests.engines.tensorrt.bench import PLAN, Bench
from tests.fakes.engine import DOUBLING, double

ROW = {"INPUT0": np.ones((1, 4), np.float32)}
OLD = "[defaultAllocator.cpp] CUDA error 2: out of memory; an illegal memory access was encountered"


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def said(bench: Bench, severity: str, text: str) -> None:
    """Let TensorRT say something on this thread."""
    logger_of(bench.trt).log(bench.trt.ILogger.Severity[severity], text)


def failing(bench: Bench, text: str, severity: str = "ERROR") -> EngineError:
    """Have the next run of the engine refused by TensorRT, which says this; return the error."""
    bench.trt.failures.append("it was refused")
    bench.trt.when_run = lambda _stream: said(bench, severity, text)
    with pytest.raises(EngineError) as failed:
        bench.engines[-1].run(ROW, {}, 1)
    bench.trt.when_run = lambda _stream: None
    return failed.value


@pytest.mark.parametrize("severity", ["WARNING", "ERROR"])
def test_what_was_said_before_a_run_says_nothing_of_it(bench: Bench, severity: str) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    said(bench, severity, OLD)
    error = failing(bench, "the tactic went away")
    text = "TensorRT could not run the plan: the tactic went away | it was refused"
    assert (error.fatal, str(error)) == (False, text)
    assert not isinstance(error, OutOfMemory)
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2


def test_what_was_said_while_the_plan_was_loaded_says_nothing_of_a_run(bench: Bench) -> None:
    bench.trt.when_run = lambda _stream: said(bench, "WARNING", OLD)
    bench.open(DOUBLING, double)
    bench.standin.fail("cuEventRecord", INVALID_VALUE)
    with pytest.raises(EngineError, match=r"cuEventRecord failed: invalid argument$") as failed:
        bench.engines[-1].run(ROW, {}, 1)
    assert not failed.value.fatal


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "an illegal memory access"])
def test_warnings_of_a_run_decide_nothing(bench: Bench, text: str) -> None:
    bench.open(DOUBLING, double, graphs=False)
    error = failing(bench, text, "WARNING")
    assert text in str(error)
    assert not error.fatal
    assert not isinstance(error, OutOfMemory)


def test_an_error_that_reads_like_one_that_stays_is_not_fatal_where_the_device_works(
    bench: Bench,
) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    error = failing(bench, "an illegal memory access was encountered; unspecified launch failure")
    assert not error.fatal
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("code", [ILLEGAL_ADDRESS, LAUNCH_FAILED, UNKNOWN, 12345])
def test_an_error_that_stays_is_fatal_whatever_its_text_is(
    bench: Bench, graphs: bool, code: int
) -> None:
    engine = bench.open(DOUBLING, double, graphs=graphs)
    bench.standin.break_context(code)
    with pytest.raises(EngineError) as failed:
        engine.run(ROW, {}, 1)
    assert failed.value.fatal


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuEventCreate", "cuMemGetInfo", "cuStreamCreate"])
def test_an_error_that_stays_is_fatal_while_a_plan_is_loaded_too(bench: Bench, call: str) -> None:
    bench.open(DOUBLING, double).close()
    bench.standin.fail(call, ILLEGAL_ADDRESS)
    with pytest.raises(EngineError) as failed:
        bench.load(DOUBLING)
    assert failed.value.fatal


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuEventCreate", "cuMemGetInfo", "cuMemHostAlloc"])
def test_an_error_that_passes_costs_one_load_and_leaves_nothing(bench: Bench, call: str) -> None:
    bench.open(DOUBLING, double).close()
    bench.standin.fail(call, UNKNOWN)
    with pytest.raises(EngineError, match=r"unknown error|999") as failed:
        bench.load(DOUBLING)
    assert not failed.value.fatal
    del failed
    gc.collect(1)
    assert bench.standin.leaks() == {}
    assert bench.load(DOUBLING).run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2


def test_a_failed_run_of_two_names_what_was_said_since_it_began(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, graphs=False)
    earlier = engine.begin(ROW, 1)
    said(bench, "ERROR", "of the earlier one")
    later = engine.begin(ROW, 1)
    bench.standin.fail("cuEventSynchronize", INVALID_VALUE)
    with pytest.raises(EngineError, match=r"invalid argument: of the earlier one$"):
        engine.finish(earlier, {})
    assert engine.finish(later, {})["OUTPUT0"][0, 0] == 2


def test_one_logger_outlives_every_engine_and_tells_the_one_whose_thread_it_is(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    first = bench.open(DOUBLING, double, graphs=False)
    second = bench.load(DOUBLING, graphs=False)
    assert len(set(map(id, bench.trt.loggers))) == 1
    first.close()
    bench.engines.remove(first)
    del first
    gc.collect()
    with caplog.at_level(logging.ERROR):
        error = failing(bench, "said after the first was closed")
    assert "said after the first was closed" in str(error)
    assert "said after the first was closed" in caplog.messages
    second.close()


def test_threads_that_ask_at_once_get_the_same_logger() -> None:
    both = threading.Barrier(2)
    found: list[object] = []

    class Slow:
        """A TensorRT whose loggers take time to be made."""

        class ILogger:
            def __init__(self) -> None:
                with suppress(threading.BrokenBarrierError):
                    both.wait(0.2)

    trt = Slow()
    threads = [threading.Thread(target=lambda: found.append(logger_of(trt))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]


def test_what_a_thread_of_tensorrt_says_goes_to_who_listened_last(bench: Bench) -> None:
    recording = Recording()
    listeners_of(bench.trt).listen(recording)
    thread = threading.Thread(target=said, args=(bench, "ERROR", "from another thread"))
    thread.start()
    thread.join()
    assert recording.told() == ["from another thread"]


def test_a_plan_with_code_of_its_own_is_loaded_only_if_it_was_asked_for(bench: Bench) -> None:
    bench.open(DOUBLING, double, buckets=(1,)).close()
    bench.models[PLAN].host_code = True
    with pytest.raises(PlanRefused, match="holds code of the host"):
        bench.load(DOUBLING, BuildOptions(buckets=(1,)))
    engine = bench.load(DOUBLING, BuildOptions(buckets=(1,), version_compatible=True))
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2


def test_of_two_gpus_one_breaks_and_the_other_goes_on(bench: Bench) -> None:
    other = Bench(index=1)
    broken = other.open(DOUBLING, double)
    assert broken.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    other.standin.break_context(device=1)
    with pytest.raises(EngineError) as failed:
        broken.run(ROW, {}, 1)
    assert failed.value.fatal
    with bench.device.current():
        engine = bench.open(DOUBLING, double)
        assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
        engine.close()
    other.close()


def test_more_rows_than_the_largest_bucket_cannot_be_begun(bench: Bench) -> None:
    engine = bench.open(DOUBLING, double, buckets=(1,))
    with pytest.raises(EngineError, match="2 rows are more than the largest bucket, 1"):
        engine.begin({"INPUT0": np.ones((2, 4), np.float32)}, 2)


def test_errors_of_the_driver_name_the_call_and_what_it_said(bench: Bench) -> None:
    with pytest.raises(TensorRTError, match=r"cuMemHostUnregister failed: pointer does not .*713"):
        bench.device.libcuda.unregister(4096)
