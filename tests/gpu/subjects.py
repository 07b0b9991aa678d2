"""What the checks of hardware run on: a plan on this host's GPU, or doubles of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from inferd_engines.tensorrt.device import Device, load_driver, open_device
from inferd_engines.tensorrt.opener import Gpu, find_gpu
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_engines.tensorrt.shim import Library
from inferd_server.settings.model import shipped_models

from benchmarks.gpu.host import add_tools
from benchmarks.gpu.subject import Subject, build
from tests.engines.tensorrt.bench import PLAN, Bench
from tests.fakes.engine import DOUBLING, double
from tests.fakes.tensorrt import FakeModel
from tests.gpu.kernels import KernelTensorRT

DIGITS = shipped_models() / "digits/1/model.onnx"
OPTIONS = BuildOptions(buckets=(1, 4, 8))


@contextmanager
def doubles() -> Iterator[Subject]:
    """Give a plan that doubles its input on a fake GPU, whose context is current."""
    bench = Bench()
    profiles = profiles_for(DOUBLING, OPTIONS.buckets, {}, batched=True)
    bench.models[PLAN] = FakeModel(DOUBLING, double, profiles)
    gpu = Gpu(bench.library, bench.device)
    yield Subject("doubling", gpu, PLAN, DOUBLING, OPTIONS)
    bench.close()


@contextmanager
def hardware() -> Iterator[Subject]:
    """Give digits on the first GPU of this host, whose context is current.

    Raises:
        TensorRTError: there is none.
    """
    add_tools()
    gpu = find_gpu()
    with gpu.device.current():
        yield build(gpu, "digits", DIGITS, OPTIONS)


@contextmanager
def kernels() -> Iterator[Subject]:
    """Give the double whose runs are kernels, on the stand-in, whose context is current."""
    bench = Bench()
    with kernels_on(bench.device) as made:
        yield made
    bench.close()


@contextmanager
def kernels_on_hardware() -> Iterator[Subject]:
    """Give the double whose runs are kernels, on the first GPU of this host.

    Raises:
        TensorRTError: there is none.
    """
    device = open_device(load_driver())
    with device.current(), kernels_on(device) as made:
        yield made


@contextmanager
def kernels_on(device: Device) -> Iterator[Subject]:
    """Give the double whose runs are kernels, on a device whose context is current."""
    profiles = profiles_for(DOUBLING, OPTIONS.buckets, {}, batched=True)
    trt = KernelTensorRT({PLAN: FakeModel(DOUBLING, double, profiles)})
    gpu = Gpu(Library(trt, "kernels", trt.__version__), device)
    yield Subject("doubling", gpu, PLAN, DOUBLING, OPTIONS)


SUBJECTS: Mapping[str, Callable[[], AbstractContextManager[Subject]]] = {
    "doubles": doubles,
    "hardware": hardware,
    "kernels": kernels,
    "kernels on hardware": kernels_on_hardware,
}
"""By name, for a child process."""
