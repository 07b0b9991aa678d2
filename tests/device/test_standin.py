"""The stand-in for the CUDA driver, under real pycuda, is as unforgiving as a GPU."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from inferd_engines.engine import Array
from inferd_engines.tensorrt.errors import TensorRTError

from tests.device.library import environment
from tests.device.standin import EAGER, ILLEGAL_ADDRESS, NO_RUN, POISON, UNKNOWN
from tests.engines.tensorrt.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def cuda(bench: Bench) -> Any:
    return bench.cuda


def locked(cuda: Any, value: int, nbytes: int = 8) -> Array:
    """Return pinned memory."""
    made: Array = cuda.pagelocked_empty(nbytes, np.uint8)
    made[:] = value
    return made


def pages(count: int = 1) -> Array:
    return np.frombuffer(mmap.mmap(-1, count * mmap.PAGESIZE), np.uint8)


def test_nothing_is_copied_before_somebody_waits(cuda: Any) -> None:
    stream, memory = cuda.Stream(1), cuda.mem_alloc(8)
    host, back = locked(cuda, 7), locked(cuda, 1)
    cuda.memcpy_htod_async(memory, host, stream)
    cuda.memcpy_dtoh_async(back, memory, stream)
    assert back.tolist() == [1] * 8
    # As on a GPU, the copy takes what is there when it happens.
    host[:] = 9
    stream.synchronize()
    assert back.tolist() == [9] * 8


def test_pageable_memory_is_copied_within_the_call(cuda: Any) -> None:
    stream, memory = cuda.Stream(1), cuda.mem_alloc(8)
    host, back = np.full(8, 7, np.uint8), np.zeros(8, np.uint8)
    cuda.memcpy_htod_async(memory, host, stream)
    host[:] = 9
    cuda.memcpy_dtoh_async(back, memory, stream)
    assert back.tolist() == [7] * 8


def test_a_stream_that_does_not_wait_for_another_reads_poison(cuda: Any) -> None:
    copying, reading = cuda.Stream(1), cuda.Stream(1)
    memory, host, back = cuda.mem_alloc(4), locked(cuda, 1, 4), locked(cuda, 0, 4)
    cuda.memcpy_htod_async(memory, host, copying)
    event = cuda.Event().record(copying)
    cuda.memcpy_dtoh_async(back, memory, reading)
    reading.synchronize()
    assert back.tolist() == [POISON] * 4
    reading.wait_for_event(event)
    cuda.memcpy_dtoh_async(back, memory, reading)
    reading.synchronize()
    assert back.tolist() == [1] * 4


def test_streams_may_work_by_themselves(bench: Bench, cuda: Any) -> None:
    bench.standin.pace(EAGER)
    stream, memory, host = cuda.Stream(1), cuda.mem_alloc(4), locked(cuda, 1, 4)
    began = threading.Event()
    bench.trt.kernels.launch(stream.handle, began.set)
    assert began.wait(30)
    cuda.memcpy_htod_async(memory, host, stream)
    stream.synchronize()
    assert stream.is_done()


def test_events_keep_the_time_if_they_are_asked_to(cuda: Any) -> None:
    stream = cuda.Stream(1)
    first, last = cuda.Event(), cuda.Event()
    first.record(stream)
    last.record(stream)
    with pytest.raises(cuda.Error, match="not ready"):
        first.time_till(last)
    last.synchronize()
    assert first.time_till(last) >= 0
    silent = cuda.Event(cuda.event_flags.DISABLE_TIMING)
    silent.record(stream)
    silent.synchronize()
    with pytest.raises(cuda.LogicError, match="invalid resource handle"):
        first.time_till(silent)


def test_memory_out_of_bounds_or_given_back_is_refused(cuda: Any) -> None:
    memory, host, stream = cuda.mem_alloc(16), locked(cuda, 1, 9), cuda.Stream(1)
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_htod_async(int(memory) + 8, host, stream)
    address = int(memory)
    memory.free()
    with pytest.raises(cuda.LogicError, match="invalid argument"):
        cuda.memcpy_htod_async(address, host, stream)


def test_memory_given_back_under_a_copy_breaks_the_context_for_ever(
    bench: Bench, cuda: Any
) -> None:
    memory, host, stream = cuda.mem_alloc(8), locked(cuda, 1), cuda.Stream(1)
    cuda.memcpy_htod_async(memory, host, stream)
    memory.free()
    for _ in range(2):
        with pytest.raises(cuda.Error, match="illegal memory access"):
            stream.synchronize()
    with pytest.raises(cuda.Error, match="illegal memory access"):
        cuda.mem_alloc(1)
    assert bench.standin.violations == 1
    bench.standin.mend()


def test_registered_memory_let_go_of_under_a_copy_breaks_it_too(bench: Bench, cuda: Any) -> None:
    memory, host, stream = cuda.mem_alloc(8), pages(), cuda.Stream(1)
    libcuda = bench.device.libcuda
    libcuda.register(host.ctypes.data, host.nbytes)
    cuda.memcpy_htod_async(memory, host[:8], stream)
    libcuda.unregister(host.ctypes.data)
    with pytest.raises(cuda.Error, match="illegal memory access"):
        stream.synchronize()
    bench.standin.mend()


def test_pages_are_registered_whole_and_once(bench: Bench) -> None:
    host, libcuda = pages(2), bench.device.libcuda
    start = host.ctypes.data
    with pytest.raises(TensorRTError, match="cuMemHostRegister_v2 failed: invalid argument"):
        libcuda.register(start + 1, mmap.PAGESIZE)
    libcuda.register(start, 2 * mmap.PAGESIZE)
    with pytest.raises(TensorRTError, match="ALREADY_REGISTERED"):
        libcuda.register(start + mmap.PAGESIZE, mmap.PAGESIZE)
    libcuda.unregister(start)
    with pytest.raises(TensorRTError, match="NOT_REGISTERED"):
        libcuda.unregister(start)


def test_a_thread_without_a_context_can_do_nothing(cuda: Any) -> None:
    said: list[str] = []

    def call() -> None:
        with pytest.raises(cuda.LogicError) as refused:
            cuda.mem_alloc(1)
        said.append(str(refused.value))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert said == ["cuMemAlloc failed: invalid device context"]


def test_an_error_can_be_asked_for_at_the_nth_call(bench: Bench, cuda: Any) -> None:
    bench.standin.fail("cuMemAlloc", UNKNOWN, nth=2)
    cuda.mem_alloc(1)
    with pytest.raises(cuda.Error, match="unknown error"):
        cuda.mem_alloc(1)
    cuda.mem_alloc(1)
    bench.standin.fail("cuMemAlloc", ILLEGAL_ADDRESS)
    for _ in range(2):
        with pytest.raises(cuda.Error, match="illegal memory access"):
            cuda.mem_alloc(1)
    bench.standin.mend()


@pytest.mark.parametrize("call", ["alloc", "wait", "collect"])
def test_what_spoils_a_capture_does(bench: Bench, cuda: Any, call: str) -> None:
    stream, libcuda = cuda.Stream(1), bench.device.libcuda
    garbage: list[Any] = [cuda.mem_alloc(8)]
    garbage.append(garbage)
    gc.disable()
    libcuda.begin_capture(stream.handle)
    try:
        if call == "collect":
            # pycuda warns that it could not give the memory back.
            del garbage
            gc.collect()
        else:
            with pytest.raises(cuda.Error, match="not permitted when stream is capturing"):
                cuda.mem_alloc(1) if call == "alloc" else stream.synchronize()
        with pytest.raises(TensorRTError, match="CAPTURE_INVALIDATED"):
            libcuda.end_capture(stream.handle)
    finally:
        gc.enable()


def test_a_graph_runs_what_was_captured_on_the_addresses_of_then(bench: Bench, cuda: Any) -> None:
    stream, libcuda = cuda.Stream(1), bench.device.libcuda
    memory, host, back = cuda.mem_alloc(8), locked(cuda, 1), locked(cuda, 0)
    done: list[int] = []
    libcuda.begin_capture(stream.handle)
    cuda.memcpy_htod_async(memory, host, stream)
    bench.trt.kernels.launch(stream.handle, lambda: done.append(1))
    cuda.memcpy_dtoh_async(back, memory, stream)
    graph = libcuda.end_capture(stream.handle)
    executable = libcuda.instantiate(graph)
    libcuda.destroy(graph)
    for value in (3, 4):
        host[:] = value
        libcuda.launch(executable, int(stream.handle))
        stream.synchronize()
        assert back.tolist() == [value] * 8
    assert done == [1, 1]
    libcuda.destroy_executable(executable)
    with pytest.raises(TensorRTError, match="cuGraphLaunch failed"):
        libcuda.launch(executable, int(stream.handle))


def test_a_capture_may_lose_its_run(bench: Bench, cuda: Any) -> None:
    stream, libcuda = cuda.Stream(1), bench.device.libcuda
    bench.standin.keep(NO_RUN)
    done: list[int] = []
    libcuda.begin_capture(stream.handle)
    bench.trt.kernels.launch(stream.handle, lambda: done.append(1))
    graph = libcuda.end_capture(stream.handle)
    executable = libcuda.instantiate(graph)
    libcuda.launch(executable, int(stream.handle))
    stream.synchronize()
    assert done == []
    libcuda.destroy(graph)
    libcuda.destroy_executable(executable)


def test_the_host_cannot_read_device_memory(bench: Bench) -> None:
    code = (
        "import ctypes, pycuda.driver as cuda; cuda.init();"
        "context = cuda.Device(0).retain_primary_context(); context.push();"
        "memory = cuda.mem_alloc(8); ctypes.string_at(int(memory), 1)"
    )
    assert child(code).returncode == -11


def test_a_host_may_have_two_gpus_of_which_some_are_visible(bench: Bench) -> None:
    code = (
        "import pycuda.driver as cuda; cuda.init(); print([cuda.Device(i).pci_bus_id() "
        "for i in range(cuda.Device.count())])"
    )
    for visible, buses in (
        ("1,0", "['0000:02:00.0', '0000:01:00.0']"),
        ("GPU-00000000-0000-0000-0000-000000000001", "['0000:02:00.0']"),
    ):
        done = child(code, STANDIN_DEVICES="2", CUDA_VISIBLE_DEVICES=visible)
        assert done.stdout.strip() == buses, done.stderr


def child(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own that has the stand-in."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
