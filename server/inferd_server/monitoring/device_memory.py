"""The memory of GPUs and of their MIG slices, as the driver's management library (NVML) tells.

It needs the package nvidia-ml-py, which is in the extra `gpu`; where that, the library or a GPU is
missing, nothing is told. Source: NVML API Reference Guide.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

log = logging.getLogger(__name__)
USED, TOTAL = "inferd_device_memory_used_bytes", "inferd_device_memory_bytes"


class DeviceMemory:
    """Asks NVML, which is started once, and from then on only as long as it answers."""

    def __init__(self, nvml: Any) -> None:
        """Take the module pynvml, or None."""
        self._nvml = nvml
        if nvml is not None:
            self._try(nvml.nvmlInit)

    def read(self) -> Mapping[tuple[str, str], float]:
        """Return USED and TOTAL of every device, by its UUID; of a GPU with slices, of those."""
        found: dict[tuple[str, str], float] = {}

        def take() -> None:
            for device in self._devices():
                memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
                uuid = text(self._nvml.nvmlDeviceGetUUID(device))
                found[USED, uuid], found[TOTAL, uuid] = float(memory.used), float(memory.total)

        if self._nvml is not None:
            self._try(take)
        return found

    def _devices(self) -> Iterator[Any]:
        nvml = self._nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            slices = list(self._slices(device))
            yield from slices or [device]

    def _slices(self, device: Any) -> Iterator[Any]:
        """Yield the slices of a GPU; none where it cannot be sliced, or is not."""
        nvml = self._nvml
        try:
            if nvml.nvmlDeviceGetMigMode(device)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
                return
            most = nvml.nvmlDeviceGetMaxMigDeviceCount(device)
        except nvml.NVMLError_NotSupported:
            return
        for place in range(most):
            try:
                yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, place)
            except nvml.NVMLError_NotFound:
                # Places may be empty between others.
                continue

    def _try(self, ask: Any) -> None:
        try:
            ask()
        except self._nvml.NVMLError as error:
            self._nvml = None
            log.warning("the memory of GPUs is told no more", extra={"why": str(error)})


def text(value: str | bytes) -> str:
    """Return what older versions of the package return as bytes."""
    return value if isinstance(value, str) else value.decode()


def device_memory(wanted: bool) -> DeviceMemory:
    """Return what tells of the GPUs' memory, if models are to run on any, and NVML is there."""
    try:
        return DeviceMemory(importlib.import_module("pynvml") if wanted else None)
    except ImportError:
        log.info("the memory of GPUs is not told: nvidia-ml-py is not installed")
        return DeviceMemory(None)
