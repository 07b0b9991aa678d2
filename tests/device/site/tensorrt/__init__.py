"""The double of TensorRT as the module that a server imports, in a process with the stand-in."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.fakes.tensorrt_onnx import OnnxTensorRT

__version__ = OnnxTensorRT.__version__


@cache
def double() -> OnnxTensorRT:
    """Return the one of this process."""
    return OnnxTensorRT()


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(double(), name)
