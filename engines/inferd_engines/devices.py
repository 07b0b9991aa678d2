"""The GPUs and MIG slices of this host, as the driver tells of them without any other library.

`python -m inferd_engines.devices` prints them as JSON: asked in a process of its own, because a
process that has asked the driver keeps it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LIBRARY = "libcuda.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
ALL = "all"
LISTING_S = 60.0
"""Seconds for the driver to start, which takes long on hosts with many GPUs."""
SLICE = re.compile(r"\(UUID: (MIG-[^)]+)\)")
"""Source: MIG User Guide, output of `nvidia-smi -L`."""
WAITS: Mapping[str, int] = {"auto": 0, "spin": 1, "yield": 2, "block": 4}
"""How a thread waits for the GPU, and the flags of a context for it.

Source: CUDA driver API, CU_CTX_SCHED_*.
"""


class DeviceProblem(Exception):
    """The driver or a GPU cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a slice of one."""

    uuid: str
    """Such as GPU-..., or MIG-... of a slice; as CUDA_VISIBLE_DEVICES takes it."""
    name: str = ""
    nbytes: int = 0
    """Of its memory; 0: unknown."""


def listed() -> Sequence[Device]:
    """Return the devices that this process may use, in the driver's order.

    Raises:
        DeviceProblem: there is no driver, or it does not start.
    """
    library = driver()
    count = ctypes.c_int()
    call(library, "cuDeviceGetCount", ctypes.byref(count))
    return [_device(library, index) for index in range(count.value)]


def driver() -> Any:
    """Return the driver's library, started.

    Raises:
        DeviceProblem: there is none, or it does not start.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceProblem(f"there is no NVIDIA driver here ({error})") from error
    call(library, "cuInit", 0)
    return library


def call(library: Any, name: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        DeviceProblem: it failed, or is not there.
    """
    try:
        code = getattr(library, name)(*arguments)
    except AttributeError as error:
        raise DeviceProblem(f"the NVIDIA driver has no {name}") from error
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(text))
        raise DeviceProblem(f"{name} failed: {(text.value or b'?').decode()} ({code})")


def _device(library: Any, index: int) -> Device:
    device, name, nbytes = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    uuid = (ctypes.c_ubyte * 16)()
    call(library, "cuDeviceGet", ctypes.byref(device), index)
    call(library, "cuDeviceGetName", name, len(name), device)
    call(library, "cuDeviceTotalMem_v2", ctypes.byref(nbytes), device)
    # Of a slice this is the slice's own.
    call(library, "cuDeviceGetUuid_v2", uuid, device)
    return Device(uuid_text(bytes(uuid), name.value.decode()), name.value.decode(), nbytes.value)


def uuid_text(uuid: bytes, name: str) -> str:
    """Write a UUID of 16 bytes as `nvidia-smi -L` does; the name of a slice has "MIG" in it."""
    digits = uuid.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(("MIG" if " MIG " in f" {name} " else "GPU", *parts))


def claim(wait: str = "auto") -> None:
    """Take the first device's primary context for this process, for good, and say how to wait.

    Args:
        wait: one of WAITS, for every wait for this context.

    Raises:
        DeviceProblem: there is no device, or it does not work.
    """
    library = driver()
    device, context, before = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    call(library, "cuDeviceGet", ctypes.byref(device), 0)
    call(library, "cuDevicePrimaryCtxSetFlags_v2", device, WAITS[wait])
    call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    # A context that cannot be made, and one that is broken, both fail here at the latest.
    call(library, "cuCtxPushCurrent_v2", context)
    call(library, "cuCtxSynchronize")
    call(library, "cuCtxPopCurrent_v2", ctypes.byref(before))


def found(environment: Mapping[str, str], smi: str | None = None) -> Sequence[Device]:
    """Return the devices of this host that may be used, asked for in processes that end.

    A process sees one slice of a GPU at most: `nvidia-smi` knows all of them. Who set
    CUDA_VISIBLE_DEVICES has chosen, slices among them.

    Args:
        environment: of this process.
        smi: path of `nvidia-smi`; None: it is looked for.

    Raises:
        DeviceProblem: there is no driver, or it does not start.
    """
    devices = _ask(environment)
    if not any(device.uuid.startswith("MIG-") for device in devices):
        return devices
    visible = environment.get(VISIBLE, "")
    slices = [one.strip() for one in visible.split(",")] if visible else _slices(smi)
    asked = [_ask({**environment, VISIBLE: one}) for one in slices]
    return [device for each in asked for device in each] or devices


def _ask(environment: Mapping[str, str]) -> Sequence[Device]:
    command = [sys.executable, "-m", __name__]
    # Indexes are nvidia-smi's then; whoever named some meant the driver's own order.
    order = {} if VISIBLE in environment else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    try:
        done = subprocess.run(
            command,
            env={**order, **environment},
            capture_output=True,
            check=False,
            timeout=LISTING_S,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceProblem(f"the GPUs could not be listed: {error}") from error
    if done.returncode:
        raise DeviceProblem(
            done.stderr.strip() or f"the driver ended the process: {done.returncode}"
        )
    return [Device(**each) for each in json.loads(done.stdout)]


def chosen(asked: Sequence[str], devices: Sequence[Device]) -> Sequence[Device]:
    """Return the devices that an operator named.

    Args:
        asked: "all" alone, or indexes and UUIDs, of which the first digits are enough.
        devices: of the host.

    Raises:
        DeviceProblem: one of them is not there, or is named twice.
    """
    if list(asked) == [ALL]:
        return devices
    found = [_chosen(one, devices) for one in asked]
    if len(set(found)) < len(found):
        raise DeviceProblem("one of them is named twice")
    return found


def _chosen(asked: str, devices: Sequence[Device]) -> Device:
    if asked.isdigit():
        found = devices[int(asked) :][:1]
    else:
        found = [device for device in devices if device.uuid.startswith(asked)]
    if len(found) != 1:
        there = ", ".join(f"{i} ({device.uuid})" for i, device in enumerate(devices)) or "none"
        raise DeviceProblem(f"{asked!r} is not one GPU of this host, which has {there}")
    return found[0]


def _slices(smi: str | None) -> Sequence[str]:
    """Return the UUIDs of all slices; none where `nvidia-smi` is not there."""
    command = smi or shutil.which("nvidia-smi")
    if command is None:
        return []
    done = subprocess.run(
        [command, "-L"], capture_output=True, check=False, timeout=LISTING_S, text=True
    )
    return SLICE.findall(done.stdout)


def main() -> int:
    """Print the devices as JSON; the reason on standard error where there are none to print."""
    try:
        devices = listed()
    except DeviceProblem as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    sys.stdout.write(json.dumps([asdict(device) for device in devices]))
    return 0


if __name__ == "__main__":
    # Nothing of Python's end may call the driver again.
    code = main()
    sys.stdout.flush()
    os._exit(code)
