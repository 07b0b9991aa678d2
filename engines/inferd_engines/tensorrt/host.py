"""What this host is to a plan: TensorRT, CUDA and GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from inferd_engines.tensorrt.device import load_driver, open_device
from inferd_engines.tensorrt.errors import DeviceMissing
from inferd_engines.tensorrt.key import Gpu, Host
from inferd_engines.tensorrt.libcuda import LIBCUDA
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import Library
from inferd_engines.tensorrt.texts import CURRENT


def host_of(
    library: Library, options: BuildOptions, find_gpu: Callable[[], Gpu] | None = None
) -> Host:
    """Return what a plan that is built or run here depends on.

    What is built ahead of time for a compute capability runs on every GPU that has it: neither
    the driver nor the GPU of this host is a part of it.

    Args:
        library: that builds or runs.
        options: of the build, its targets among them.
        find_gpu: returns this host's GPU; default: ask pycuda.

    Raises:
        DeviceMissing: the plan is for the GPU of this host, and there is none.
    """
    cuda = "" if library.ahead_of_time else cuda_version()
    own = not library.ahead_of_time or CURRENT in options.targets
    gpu = own_gpu(find_gpu or first_gpu) if own else None
    return Host(library.flavour, library.version, cuda, gpu)


def own_gpu(find_gpu: Callable[[], Gpu]) -> Gpu:
    """Return this host's GPU.

    Raises:
        DeviceMissing: there is none, and the plan would be for it.
    """
    try:
        return find_gpu()
    except DeviceMissing as error:
        raise DeviceMissing(f"the plan would be for the GPU of this host, and {error}") from error


def first_gpu() -> Gpu:
    """Return the first GPU of this host.

    Raises:
        DeviceMissing: there is none.
    """
    return open_device(load_driver()).gpu


def cuda_version() -> str:
    """Return the version of CUDA that the driver knows, such as "13.0"; "" without a driver.

    Source: CUDA driver API, cuDriverGetVersion.
    """
    try:
        driver = ctypes.CDLL(LIBCUDA)
    except OSError:
        return ""
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)):
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
