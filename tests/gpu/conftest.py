"""The GPU of this host, if TensorRT and pycuda can use it, and doubles of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd_engines.tensorrt.device import Device, load_driver, open_device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.opener import Gpu
from inferd_engines.tensorrt.shim import find

from benchmarks.gpu.host import add_tools
from benchmarks.gpu.subject import Subject, build
from tests.device.library import load
from tests.gpu.subjects import DIGITS, OPTIONS, SUBJECTS, kernels_on


@pytest.fixture(scope="session")
def device() -> Device:
    """The first GPU, whether TensorRT runs on it or not; retained once."""
    if load.cache_info().currsize:
        pytest.skip("this process has the stand-in for the driver: pytest -m gpu")
    try:
        return open_device(load_driver())
    except TensorRTError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.fixture
def card(device: Device) -> Iterator[Device]:
    """The first GPU, with its context current."""
    with device.current():
        yield device


@pytest.fixture(scope="session")
def found(device: Device) -> Gpu:
    """TensorRT and the first GPU."""
    add_tools()
    try:
        return Gpu(find(), device)
    except TensorRTError as error:
        pytest.skip(f"no TensorRT: {error}")


@pytest.fixture
def gpu(found: Gpu) -> Iterator[Gpu]:
    """The GPU, with its context current."""
    with found.device.current():
        yield found


@pytest.fixture(scope="session")
def digits(found: Gpu) -> Subject:
    """Digits built for this GPU, once."""
    with found.device.current():
        return build(found, "digits", DIGITS, OPTIONS)


@pytest.fixture(
    params=[
        "doubles",
        "kernels",
        pytest.param("kernels on hardware", marks=pytest.mark.gpu),
        pytest.param("hardware", marks=pytest.mark.gpu),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A plan on doubles, and on hardware where there is some: the same code runs on all."""
    if request.param == "hardware":
        request.getfixturevalue("gpu")
        digits: Subject = request.getfixturevalue("digits")
        yield digits
        return
    if request.param == "kernels on hardware":
        with kernels_on(request.getfixturevalue("card")) as made:
            yield made
        return
    with SUBJECTS[request.param]() as made:
        yield made
