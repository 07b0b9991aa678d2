"""The GPU of this host, if TensorRT and pycuda can use it, and doubles of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.opener import Gpu, find_gpu

from benchmarks.gpu.host import add_tools
from benchmarks.gpu.subject import Subject, build
from tests.device.library import load
from tests.gpu.subjects import DIGITS, OPTIONS, doubles


@pytest.fixture(scope="session")
def found() -> Gpu:
    """TensorRT and the first GPU; retained once."""
    if load.cache_info().currsize:
        pytest.skip("this process has the stand-in for the driver: pytest -m gpu")
    add_tools()
    try:
        return find_gpu()
    except TensorRTError as error:
        pytest.skip(f"no GPU: {error}")


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


@pytest.fixture(params=["doubles", pytest.param("hardware", marks=pytest.mark.gpu)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A plan on doubles, and on hardware where there is some: the same code runs on both."""
    if request.param == "doubles":
        with doubles() as made:
            yield made
        return
    request.getfixturevalue("gpu")
    digits: Subject = request.getfixturevalue("digits")
    yield digits
