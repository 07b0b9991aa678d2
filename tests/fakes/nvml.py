"""A double for pynvml, NVIDIA's management library: GPUs and MIG slices as a test makes them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NVML_DEVICE_MIG_ENABLE = 1


class NVMLError(Exception):
    """What every function raises."""


class NVMLError_NotSupported(NVMLError):  # noqa: N801 its name
    """The GPU cannot do this."""


class NVMLError_NotFound(NVMLError):  # noqa: N801 its name
    """Nothing is in this place."""


@dataclass
class FakeDevice:
    """A GPU, or a slice of one; what it is asked for it is itself."""

    uuid: str | bytes
    used: int
    total: int
    slices: Sequence[FakeDevice | None] | None = None
    """None: it cannot be sliced."""


class FakeNvml:
    """The module."""

    NVML_DEVICE_MIG_ENABLE = NVML_DEVICE_MIG_ENABLE
    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_NotFound = NVMLError_NotFound

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = devices
        self.broken = False

    def nvmlInit(self) -> None:  # noqa: N802 its name
        self._work()

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 its name
        self._work()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeDevice:  # noqa: N802 its name
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: FakeDevice) -> str | bytes:  # noqa: N802 its name
        return device.uuid

    def nvmlDeviceGetMemoryInfo(self, device: FakeDevice) -> FakeDevice:  # noqa: N802 its name
        return device

    def nvmlDeviceGetMigMode(self, device: FakeDevice) -> tuple[int, int]:  # noqa: N802 its name
        if device.slices is None:
            raise NVMLError_NotSupported("Not Supported")
        return (int(bool(device.slices)), 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, device: FakeDevice) -> int:  # noqa: N802 its name
        return len(device.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802 its name
        self, device: FakeDevice, place: int
    ) -> FakeDevice:
        assert device.slices is not None
        found = device.slices[place]
        if found is None:
            raise NVMLError_NotFound("Not Found")
        return found

    def _work(self) -> None:
        if self.broken:
            raise NVMLError("GPU is lost")
