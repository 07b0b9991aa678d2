"""ONNX Runtime's exceptions as single sentences."""

from __future__ import annotations

import re
from pathlib import Path

LIMIT = 300
"""Characters of a message that are kept."""

_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
# Where in the C++ source it happened, with the whole signature of the function.
_SOURCE = re.compile(
    r"/\S+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ (?:.*?\)(?: const)?(?: \[with [^\]]*\])? )?"
)
_CUDA_FAILURE = re.compile(r"CUDA failure (\d+)")
_CUDA_OUT_OF_MEMORY = "2"


def brief(error: BaseException) -> str:
    """Return the message on one line, without codes and C++ stack, at most LIMIT long."""
    text = str(error).split("Stacktrace:", maxsplit=1)[0]
    text = " ".join(_SOURCE.sub("", _CODE.sub("", text)).split())
    return text if len(text) <= LIMIT else text[: LIMIT - 3] + "..."


def is_fatal(error: BaseException) -> bool:
    """Tell whether the process must go: CUDA errors other than out-of-memory stay in a context.

    Source: "Error Checking" in NVIDIA's CUDA C++ Programming Guide (sticky errors).
    """
    failure = _CUDA_FAILURE.search(str(error))
    return failure is not None and failure.group(1) != _CUDA_OUT_OF_MEMORY


def load_failure(path: Path, error: BaseException) -> str:
    """Return the sentence for a model file that ONNX Runtime does not load."""
    if type(error).__name__ == "InvalidProtobuf" or "No graph was found" in str(error):
        return f"{path} is not a whole ONNX file: it is truncated, damaged or of another format"
    return f"ONNX Runtime cannot load {path}: {brief(error)}"
