"""The memory of GPUs in /metrics, over a double for NVML."""

from __future__ import annotations

import sys

import pytest
from inferd_server.monitoring.device_memory import DeviceMemory, device_memory
from inferd_server.monitoring.metrics import Metrics

from tests.fakes.nvml import FakeDevice, FakeNvml

WHOLE = FakeDevice("GPU-1", 10, 80)
SLICED = FakeDevice(
    "GPU-2", 30, 80, (FakeDevice("MIG-a", 1, 20), None, FakeDevice(b"MIG-b", 2, 40))
)


def told(memory: DeviceMemory) -> dict[str, tuple[float | None, float | None]]:
    """Return used and total bytes by device, as they are collected."""
    metrics = Metrics()
    metrics.watch_devices(memory.read)
    value = metrics.registry.get_sample_value
    names = "inferd_device_memory_used_bytes", "inferd_device_memory_bytes"
    return {
        device: (value(names[0], {"device": device}), value(names[1], {"device": device}))
        for device in ("GPU-1", "GPU-2", "MIG-a", "MIG-b")
        if value(names[0], {"device": device}) is not None
    }


def test_memory_is_told_by_device_and_by_slice_of_one_that_is_sliced() -> None:
    memory = DeviceMemory(FakeNvml(WHOLE, SLICED))
    assert told(memory) == {"GPU-1": (10, 80), "MIG-a": (1, 20), "MIG-b": (2, 40)}


def test_a_gpu_that_could_be_sliced_and_is_not_is_told_whole() -> None:
    memory = DeviceMemory(FakeNvml(FakeDevice("GPU-1", 10, 80, ())))
    assert told(memory) == {"GPU-1": (10, 80)}


def test_a_gpu_that_is_lost_leaves_the_other_metrics(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml(WHOLE)
    memory = DeviceMemory(nvml)
    assert told(memory)
    nvml.broken = True
    assert told(memory) == told(memory) == {}
    assert [record.message for record in caplog.records] == ["the memory of GPUs is told no more"]


@pytest.mark.parametrize("wanted", [True, False])
def test_where_there_is_no_nvml_or_no_gpu_is_wanted_nothing_is_told(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it were not installed.
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert told(device_memory(wanted)) == {}


def test_the_installed_library_is_asked_where_a_gpu_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(WHOLE))
    assert told(device_memory(True)) == {"GPU-1": (10, 80)}
    assert told(device_memory(False)) == {}
