"""The GPU through pycuda: found, retained once, current only where it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from inferd_engines.tensorrt.errors import DeviceMissing
from inferd_engines.tensorrt.key import Gpu
from inferd_engines.tensorrt.libcuda import DriverError, Libcuda
from inferd_engines.tensorrt.pinned import HostMemory

DRIVER = "pycuda.driver"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU and its primary context, the one that TensorRT uses, too.

    One object for each device and process: pycuda takes two for two different contexts.
    """

    cuda: Any
    """The module pycuda.driver."""
    index: int
    gpu: Gpu
    context: Any
    libcuda: Libcuda
    """What pycuda does not have."""
    host_memory: HostMemory
    """What is locked for it of other people's memory."""

    def enter(self) -> None:
        """Make the context current on the calling thread, which has to `leave` before it ends."""
        self.context.push()

    def leave(self) -> None:
        """Take the context from the calling thread: pycuda aborts the process otherwise."""
        self.context.pop()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current for a while."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def free_bytes(self) -> int:
        """Return the memory that nobody holds. With the context current."""
        free, _ = self.cuda.mem_get_info()
        return int(free)

    def works(self) -> bool:
        """True unless its context is broken for ever, which the driver tells whoever waits for it.

        A thread without the context cannot tell.
        """
        try:
            if self.cuda.Context.get_current() is not None:
                self.context.synchronize()
        except self.cuda.Error:
            return False
        return True


def load_driver(load: Callable[[str], Any] = import_module) -> Any:
    """Import pycuda and initialise the driver; return the module.

    Raises:
        DeviceMissing: pycuda or the driver's library is missing, or the driver finds no device.
    """
    try:
        cuda = load(DRIVER)
    except ModuleNotFoundError as error:
        raise DeviceMissing(f"pycuda is not installed ({error}); the extra gpu has it") from error
    except ImportError as error:
        raise DeviceMissing(f"there is no NVIDIA driver here ({error})") from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise DeviceMissing(f"the NVIDIA driver does not start ({error})") from error
    if not count:
        raise DeviceMissing("the NVIDIA driver finds no GPU")
    return cuda


def open_device(cuda: Any, index: int = 0) -> Device:
    """Retain a GPU's primary context; it is not made current.

    Raises:
        DeviceMissing: there is no such GPU, or it does not work.
    """
    try:
        found = cuda.Device(index)
        context = found.retain_primary_context()
        libcuda = Libcuda()
    except (cuda.Error, DriverError) as error:
        raise DeviceMissing(f"GPU {index} cannot be used ({error})") from error
    capability = ".".join(map(str, found.compute_capability()))
    processors = found.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT)
    gpu = Gpu(found.name(), capability, int(processors))
    return Device(cuda, index, gpu, context, libcuda, HostMemory(libcuda))
