"""The GPUs of a host: listed, named, and taken, by the driver's own functions on the stand-in."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inferd_engines import devices
from inferd_engines.devices import Device, DeviceProblem, chosen, found, uuid_text

from tests.device.library import Missing, environment, load
from tests.device.standin import NO_DEVICE, Standin

UUIDS = [f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(3)]
HOST = [Device(f"{kind}-{digits}") for kind, digits in (("GPU", "ab1"), ("GPU", "ab2"))]


@pytest.fixture
def host() -> dict[str, str]:
    """The environment of a host with three GPUs."""
    try:
        own = environment()
    except Missing as error:
        pytest.skip(str(error))
    return {**os.environ, **own, "STANDIN_DEVICES": "3"}


@pytest.fixture
def standin() -> Standin:
    try:
        return Standin()
    except Missing as error:
        pytest.skip(str(error))


def test_every_gpu_that_is_visible_is_listed_with_its_memory(host: dict[str, str]) -> None:
    listed = found(host)
    assert [device.uuid for device in listed] == UUIDS
    assert {(device.name, device.nbytes) for device in listed} == {("Fake GPU", 1 << 30)}


def test_who_made_some_visible_has_chosen(host: dict[str, str]) -> None:
    listed = found(host | {"CUDA_VISIBLE_DEVICES": f"2,{UUIDS[0]}"})
    assert [device.uuid for device in listed] == [UUIDS[2], UUIDS[0]]


def test_slices_are_listed_one_by_one_because_a_process_sees_one(
    host: dict[str, str], tmp_path: Path
) -> None:
    slices = [f"MIG-00000000-0000-0000-0000-00000000000{index}" for index in range(2)]
    smi = tmp_path / "nvidia-smi"
    lines = "".join(f"    MIG 1g.10gb Device 0: (UUID: {one})\n" for one in slices)
    smi.write_text(f"#!/bin/sh\ncat <<'END'\nGPU 0: Fake (UUID: {UUIDS[0]})\n{lines}END\n")
    smi.chmod(0o700)
    named = host | {"STANDIN_NAME": "Fake GPU MIG 1g.10gb"}
    assert [device.uuid for device in found(named, str(smi))] == slices
    visible = named | {"CUDA_VISIBLE_DEVICES": slices[1]}
    assert [device.uuid for device in found(visible, str(smi))] == slices[1:]


def test_a_host_without_a_driver_is_a_problem_in_words(host: dict[str, str]) -> None:
    absent = {k: v for k, v in host.items() if k not in ("LD_LIBRARY_PATH", "STANDIN_DEVICES")}
    try:
        ctypes.CDLL(devices.LIBRARY)
    except OSError:
        with pytest.raises(DeviceProblem, match="there is no NVIDIA driver here"):
            found(absent)


def test_a_driver_that_does_not_start_is_a_problem_with_its_name(standin: Standin) -> None:
    standin.devices(0, init=NO_DEVICE)
    with pytest.raises(DeviceProblem, match=r"cuInit failed: CUDA_ERROR_NO_DEVICE \(100\)"):
        devices.listed()
    standin.mend()


def test_uuids_are_written_as_cuda_reads_them() -> None:
    uuid = bytes.fromhex("0123456789abcdef0123456789abcdef")
    text = "01234567-89ab-cdef-0123-456789abcdef"
    assert uuid_text(uuid, "NVIDIA H100 80GB HBM3") == f"GPU-{text}"
    assert uuid_text(uuid, "NVIDIA H100 80GB HBM3 MIG 1g.10gb") == f"MIG-{text}"


def test_gpus_are_chosen_by_index_and_by_the_beginning_of_a_uuid() -> None:
    assert chosen(["all"], HOST) == HOST
    assert chosen(["1", "GPU-ab1"], HOST) == [HOST[1], HOST[0]]


@pytest.mark.parametrize("asked", ["2", "GPU-ac", "GPU-ab", "MIG-ab"])
def test_a_gpu_that_is_not_there_is_a_problem_that_names_those_that_are(asked: str) -> None:
    with pytest.raises(DeviceProblem, match=r"not one GPU .* has 0 \(GPU-ab1\), 1 \(GPU-ab2\)"):
        chosen([asked], HOST)


def test_a_gpu_that_is_named_twice_is_a_problem() -> None:
    with pytest.raises(DeviceProblem, match="named twice"):
        chosen(["0", "GPU-ab1"], HOST)


@pytest.mark.parametrize(("wait", "flags"), devices.WAITS.items())
def test_a_process_that_takes_its_gpu_says_how_it_waits_for_it(
    host: dict[str, str], wait: str, flags: int
) -> None:
    code = (
        f"import ctypes; from inferd_engines.devices import claim; claim({wait!r})\n"
        "cuda, flags, active = ctypes.CDLL('libcuda.so.1'), ctypes.c_uint(), ctypes.c_int()\n"
        "cuda.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))\n"
        "print(flags.value, active.value)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=host, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(flags), "1"]


def test_a_gpu_that_does_not_work_cannot_be_taken(host: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "1").touch()
    broken = host | {"STANDIN_BROKEN": str(tmp_path), "CUDA_VISIBLE_DEVICES": UUIDS[1]}
    code = "from inferd_engines.devices import claim; claim()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=broken, capture_output=True, text=True, check=False
    )
    assert "cuDevicePrimaryCtxRetain failed: CUDA_ERROR_ECC_UNCORRECTABLE (214)" in done.stderr


def test_the_stand_in_is_the_driver_of_this_process(standin: Standin) -> None:
    assert load() is standin.library
    standin.devices(2)
    assert [device.uuid for device in devices.listed()] == UUIDS[:2]
    standin.mend()
