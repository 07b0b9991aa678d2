"""The real TensorRT-RTX, whose builder needs no GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from inferd_engines.tensorrt.shim import Library, find

RTX = Path(__file__).parents[3] / ".tools/tensorrt_rtx"


@pytest.fixture(scope="session")
def library() -> Library:
    """TensorRT-RTX, as `make tools` fetches it."""
    if not RTX.is_dir():
        pytest.skip("TensorRT-RTX is not there: make tools")
    if str(RTX) not in sys.path:
        sys.path.append(str(RTX))
    return find(("tensorrt_rtx_bindings",))


@pytest.fixture
def wait_for() -> Callable[[subprocess.Popen[str], str], None]:
    """Read what a process says until some text comes."""

    def wait(process: subprocess.Popen[str], text: str) -> None:
        assert process.stderr is not None
        said = ""
        while text not in said:
            more = process.stderr.read(1)
            assert more, f"it ended and said {said!r}"
            said += more

    return wait
