"""The doubles have the names that the real classes have, and they are as unforgiving as said."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest
from inferd_engines.tensorrt.shim import Library

from tests.fakes import cuda, tensorrt, tensorrt_builder
from tests.fakes.cuda import POISON, FakeDriver


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    made = FakeDriver()
    context = made.Device(0).retain_primary_context()
    context.push()
    yield made
    context.pop()


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("double", "real"),
    [
        (tensorrt.ExecutionContext, "IExecutionContext"),
        (tensorrt.CudaEngine, "ICudaEngine"),
        (tensorrt.Runtime, "Runtime"),
        (tensorrt_builder.ITimingCache, "ITimingCache"),
        (tensorrt_builder.BuilderConfig, "IBuilderConfig"),
    ],
)
def test_what_a_double_has_the_real_class_has(library: Library, double: type, real: str) -> None:
    own = {
        "ExecutionContext": {"engine", "profile", "shapes", "addresses", "scratch", "allocators"},
        "CudaEngine": {"allows"},
        "Runtime": {"check", "fail", "asynchronous"},
        "ITimingCache": set(),
        "BuilderConfig": {"cache"},
    }[double.__name__]
    found = getattr(library.module, real)
    missing = [name for name in public(double) if name not in own and not hasattr(found, name)]
    assert missing == []


def test_what_the_engine_calls_of_the_real_classes_takes_what_it_is_given(
    library: Library,
) -> None:
    trt = library.module
    for kind, method, words in (
        (trt.IExecutionContext, "set_optimization_profile_async", "stream_handle"),
        (trt.IExecutionContext, "set_input_shape", "name"),
        (trt.IExecutionContext, "set_tensor_address", "memory"),
        (trt.IExecutionContext, "execute_async_v3", "stream_handle"),
        (trt.IExecutionContext, "set_device_memory", "size"),
        (trt.IExecutionContext, "set_output_allocator", "output_allocator"),
        (trt.ICudaEngine, "is_shape_inference_io", "name"),
        (trt.ICudaEngine, "get_device_memory_size_for_profile_v2", "profile_index"),
        (trt.ICudaEngine, "create_execution_context", "strategy"),
        (trt.Runtime, "deserialize_cuda_engine", "serialized_engine"),
        (trt.IBuilderConfig, "set_timing_cache", "ignore_mismatch"),
        (trt.ITimingCache, "combine", "input_cache"),
    ):
        text = inspect.getdoc(getattr(kind, method)) or ""
        assert words in text, (method, text)


def test_datatypes_and_enumerations_have_the_real_names(library: Library) -> None:
    trt = library.module
    for double, real in (
        (tensorrt.DataType, trt.DataType),
        (tensorrt.TensorIOMode, trt.TensorIOMode),
        (tensorrt.ExecutionContextAllocationStrategy, trt.ExecutionContextAllocationStrategy),
        (tensorrt.ILogger.Severity, trt.ILogger.Severity),
    ):
        assert [one.name for one in double if not hasattr(real, one.name)] == []


def test_nothing_is_copied_before_somebody_waits(driver: FakeDriver) -> None:
    stream, memory = driver.Stream(1), driver.mem_alloc(8)
    host = driver.pagelocked_empty(8, np.uint8)
    host[:] = 7
    back = driver.pagelocked_empty(8, np.uint8)
    driver.memcpy_htod_async(memory, host, stream)
    driver.memcpy_dtoh_async(back, memory, stream)
    assert back.tolist() == [POISON] * 8
    # As on a GPU, the copy takes what is there when it happens.
    host[:] = 9
    stream.synchronize()
    assert back.tolist() == [9] * 8


def test_a_stream_that_does_not_wait_for_another_reads_poison(driver: FakeDriver) -> None:
    copying, reading = driver.Stream(1), driver.Stream(1)
    memory, host = driver.mem_alloc(4), driver.pagelocked_empty(4, np.uint8)
    back = driver.pagelocked_empty(4, np.uint8)
    host[:] = 1
    driver.memcpy_htod_async(memory, host, copying)
    event = driver.Event().record(copying)
    driver.memcpy_dtoh_async(back, memory, reading)
    reading.synchronize()
    assert back.tolist() == [POISON] * 4
    reading.wait_for_event(event)
    driver.memcpy_dtoh_async(back, memory, reading)
    reading.synchronize()
    assert back.tolist() == [1] * 4


def test_memory_out_of_bounds_or_given_back_is_an_error(driver: FakeDriver) -> None:
    memory = driver.mem_alloc(16)
    with pytest.raises(cuda.LaunchError, match="illegal memory access"):
        driver.memory_at(int(memory) + 8, 9)
    memory.free()
    with pytest.raises(cuda.LaunchError, match="illegal memory access"):
        driver.memory_at(int(memory), 1)
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        memory.free()


def test_memory_that_is_not_pinned_is_refused(driver: FakeDriver) -> None:
    memory, stream = driver.mem_alloc(8), driver.Stream(1)
    with pytest.raises(cuda.LogicError, match="not pinned"):
        driver.memcpy_htod_async(memory, np.zeros(8, np.uint8), stream)


def test_a_thread_without_a_context_can_do_nothing() -> None:
    with pytest.raises(cuda.LogicError, match="invalid device context"):
        FakeDriver().mem_alloc(1)


def test_a_captured_stream_records_and_does_not_run(driver: FakeDriver) -> None:
    graphs, stream = cuda.FakeGraphs(driver), driver.Stream(1)
    done: list[int] = []
    graphs.begin(stream.handle)
    stream.enqueue(lambda: done.append(1))
    with pytest.raises(cuda.LogicError, match="capturing"):
        stream.synchronize()
    executable = graphs.instantiate(graphs.end(stream.handle))
    stream.synchronize()
    assert done == []
    for _ in range(2):
        graphs.launch(executable, stream.handle)
    stream.synchronize()
    assert done == [1, 1]
