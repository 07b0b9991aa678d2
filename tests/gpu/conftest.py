"""The GPU of this host, if TensorRT and pycuda can use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.opener import Gpu, find_gpu

from tests.gpu import hardware


@pytest.fixture(scope="session")
def found() -> Gpu:
    """TensorRT, the first GPU and its graphs; retained once."""
    hardware.add_tools()
    try:
        return find_gpu()
    except TensorRTError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.fixture
def gpu(found: Gpu) -> Iterator[Gpu]:
    """The GPU, with its context current."""
    with found.device.current():
        yield found
