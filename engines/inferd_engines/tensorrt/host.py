"""What this host is to a plan: TensorRT, CUDA and GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from inferd_engines.tensorrt.device import load_driver, open_device
from inferd_engines.tensorrt.key import Gpu, Host
from inferd_engines.tensorrt.shim import Library

LIBCUDA = "libcuda.so.1"


def host_of(library: Library, find_gpu: Callable[[], Gpu] | None = None) -> Host:
    """Return what a plan that is built or run here depends on.

    Plans of the RTX flavour are built ahead of time for targets: neither the driver nor the
    GPU of this host is a part of them.

    Args:
        library: that builds or runs.
        find_gpu: returns this host's GPU; default: ask pycuda.

    Raises:
        DeviceMissing: plans of this flavour are for one GPU, and there is none.
    """
    if library.ahead_of_time:
        return Host(library.flavour, library.version, "")
    return Host(library.flavour, library.version, cuda_version(), (find_gpu or first_gpu)())


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
