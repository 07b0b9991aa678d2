"""The first things to know of a GPU: its driver, memory that it may read, what TensorRT says."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.host import cuda_version
from inferd_engines.tensorrt.loading import check_valid
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of
from inferd_engines.tensorrt.texts import CURRENT

from tests.engines.tensorrt.bench import Bench
from tests.gpu.subjects import DIGITS, OPTIONS

OLDEST = (13, 0)


@pytest.fixture(params=["stand-in", pytest.param("hardware", marks=pytest.mark.gpu)])
def here(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device with its context current."""
    if request.param == "hardware":
        yield request.getfixturevalue("card")
        return
    bench = Bench()
    yield bench.device
    bench.close()


def test_the_driver_is_new_enough(here: Device) -> None:
    version = tuple(map(int, cuda_version().split(".")))
    assert version >= OLDEST, f"{here.gpu.name}: the driver knows CUDA {cuda_version()}"


def test_registered_memory_is_copied_from_where_it_is_and_let_go_of(here: Device) -> None:
    cuda, memory = here.cuda, np.frombuffer(mmap.mmap(-1, 4 * mmap.PAGESIZE), np.uint8)
    held = here.host_memory.acquire(memory[: 2 * mmap.PAGESIZE])
    target, stream = cuda.mem_alloc(mmap.PAGESIZE), cuda.Stream(1)
    memory[: mmap.PAGESIZE] = np.arange(mmap.PAGESIZE) % 251
    back = cuda.pagelocked_empty(mmap.PAGESIZE, np.uint8)
    cuda.memcpy_htod_async(target, memory[: mmap.PAGESIZE], stream)
    cuda.memcpy_dtoh_async(back, target, stream)
    stream.synchronize()
    np.testing.assert_array_equal(back, memory[: mmap.PAGESIZE])
    here.host_memory.release(held)
    # And may be locked again, with its neighbours.
    here.host_memory.release(here.host_memory.acquire(memory))
    target.free()


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_tensorrt_takes_a_plan_for_this_gpu(gpu: Gpu) -> None:
    trt, recording = gpu.library.module, Recording()
    listeners_of(trt).listen(recording)
    targets = (CURRENT,) if gpu.library.ahead_of_time else ()
    plan, _ = Builder(gpu.library).build(DIGITS, replace(OPTIONS, targets=targets))
    recording.begin()
    listeners_of(trt).listen(recording)
    try:
        check_valid(trt, trt.Runtime(logger_of(trt)), plan, recording)
    except TensorRTError as error:
        pytest.fail(f"{gpu.library.flavour} on {gpu.device.gpu}: {error}")
