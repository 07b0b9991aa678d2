"""ONNX Runtime's exceptions as single sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from inferd_engines.engine import Array

LIMIT = 300
"""Characters of a message that are kept."""

_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
# Where in the C++ source it happened, with the whole signature of the function.
_SOURCE = re.compile(
    r"/\S+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ (?:.*?\)(?: const)?(?: \[with [^\]]*\])? )?"
)
# A place in the source without its folder, such as "matmul_helper.h:59 Compute".
_PLACE = re.compile(r"\b[\w-]+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ [\w:<>~()]+ ")
_CONDITION = re.compile(r"^.{0,200}? was false\. ")
_NODE = re.compile(
    r"Non-zero status code returned while running (?P<operator>\S+) node\. "
    r"Name:'(?P<name>[^']*)' Status Message: ?"
)
# What the kernels of ONNX Runtime's CPU provider say of values and shapes that they cannot take,
# other than by the code INVALID_ARGUMENT. Anything else may be a fault of model or runtime.
_BAD_INPUT = re.compile(
    r"out of (?:data )?bounds|out of range|broadcast|dimension mismatch|dimensions must match"
    r"|mismatched dimensions|Unknown Category|is NaN|output dimension is negative"
    r"|cannot be reshaped|modulo by zero|division by zero|should not be greater than"
    r"|invalid (?:index|indices|shape|expand shape)|sto(?:d|f|i|l|ll|ul|ull)\b"
    r"|must be (?:within|less|greater|positive|non-negative)",
    re.IGNORECASE,
)
_INVALID_ARGUMENT = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT"
_CUDA_FAILURE = re.compile(r"CUDA failure (\d+)")
_LOCALE = re.compile(r"Failed to construct locale with name:([\w-]+)")
_CUDA_OUT_OF_MEMORY = "2"


def brief(error: BaseException) -> str:
    """Return the message on one line, without codes and C++ stack, at most LIMIT long."""
    text = str(error).split("Stacktrace:", maxsplit=1)[0]
    text = " ".join(_SOURCE.sub("", _CODE.sub("", text)).split())
    node = _NODE.search(text)
    if node is not None:
        what = _CONDITION.sub("", _PLACE.sub("", text[node.end() :]))
        named = f" {node['name']!r}" if node["name"] else ""
        text = f"{node['operator']} node{named}: {what or 'it failed without a word'}"
    return text if len(text) <= LIMIT else text[: LIMIT - 3] + "..."


def is_fatal(error: BaseException) -> bool:
    """Tell whether the process must go: CUDA errors other than out-of-memory stay in a context.

    Source: "Error Checking" in NVIDIA's CUDA C++ Programming Guide (sticky errors).
    """
    failure = _CUDA_FAILURE.search(str(error))
    return failure is not None and failure.group(1) != _CUDA_OUT_OF_MEMORY


def is_bad_input(error: BaseException, inputs: Mapping[str, Array]) -> bool:
    """Tell whether the values of the inputs, and nothing else, made a run fail.

    Args:
        error: of ONNX Runtime.
        inputs: of the run.
    """
    text = str(error)
    if text.startswith(_INVALID_ARGUMENT):
        return True
    node = _NODE.search(text)
    if node is None:
        return False
    # Some kernels say nothing at all when they are given nothing.
    empty = any(array.size == 0 for array in inputs.values())
    return empty or _BAD_INPUT.search(text, node.end()) is not None


def load_failure(path: Path, error: BaseException) -> str:
    """Return the sentence for a model file that ONNX Runtime does not load."""
    if type(error).__name__ == "InvalidProtobuf" or "No graph was found" in str(error):
        return f"{path} is not a whole ONNX file: it is truncated, damaged or of another format"
    text = str(error)
    locale = _LOCALE.search(text)
    if locale is not None:
        return (
            f"the model needs the locale {locale[1]}, which this machine does not have: install it "
            f"(on Debian and Ubuntu: apt-get install locales, then localedef -i {locale[1]} "
            f"-f UTF-8 {locale[1]}), or export the model with another one: "
            "options={TfidfVectorizer: {'locale': 'C'}} for scikit-learn's converter"
        )
    return f"ONNX Runtime cannot load {path}: {brief(error)}"
