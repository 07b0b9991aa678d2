"""ONNX Runtime's exceptions as single sentences."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from inferd_engines.engine import Array
from inferd_engines.model_files import SEALED

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
SHOWN = 5
"""Names of files in a sentence."""
_EXPORT = "export it to ONNX, see docs/exporting.md"
MAKERS: Mapping[str, str] = {
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ckpt"), f"PyTorch's: {_EXPORT}"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), f"a Python object: {_EXPORT}"),
    **dict.fromkeys((".h5", ".keras", ".pb", ".tflite", "saved_model"), f"TensorFlow's: {_EXPORT}"),
    **dict.fromkeys((".bst", ".ubj", ".xgb"), f"XGBoost's: {_EXPORT}"),
    ".cbm": f"CatBoost's: {_EXPORT}",
    ".safetensors": f"weights without a model: {_EXPORT}",
    **dict.fromkeys(
        (".plan", ".engine", ".trt"),
        "a plan of TensorRT: give the ONNX file that it was built from, see docs/tensorrt.md",
    ),
}
"""What a file is and what to do with it, by its suffix or name."""
MARKS: Sequence[tuple[bytes, str]] = (
    (SEALED, "sealed, and its seal.json is not beside it: copy the whole folder"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the model: run git lfs pull"),
    (b"PK\x03\x04", f"PyTorch's or Keras', whatever its name: {_EXPORT}"),
    (b"\x89HDF", f"TensorFlow's or Keras', whatever its name: {_EXPORT}"),
    (b"\x80", f"a Python object, whatever its name: {_EXPORT}"),
)
"""How files begin that are called a model and are none."""
CURES: Sequence[tuple[re.Pattern[str], str]] = (
    (
        re.compile(r"Failed to construct locale with name:([\w-]+)"),
        "the model needs the locale {0}, which this machine does not have: install it (on Debian "
        "and Ubuntu: apt-get install locales, then localedef -i {0} -f UTF-8 {0}), or export the "
        "model with another one: options={{TfidfVectorizer: {{'locale': 'C'}}}} for scikit-learn's "
        "converter",
    ),
    (
        re.compile(r"Could not find an implementation for (\w+)\((\d+)\)"),
        "this ONNX Runtime has no {0} (opset {1}) for the types that the model gives it; bfloat16 "
        "is a type that few operators take: export the model in float32 or float16",
    ),
    (
        re.compile(r"(?:Fatal error: |No Op registered for )([\w.:]+?)(?:\(-?\d+\))? (?:is|with) "),
        "this ONNX Runtime does not know the operator {0}: name the library that brings it in "
        "custom_ops of model.yaml (docs/models.md), or export the model with an older opset",
    ),
)
"""What ONNX Runtime says of models that it cannot load, and what helps."""
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


def load_failure(path: Path, error: BaseException, missing: Collection[str] = ()) -> str:
    """Return the sentence for a model file that ONNX Runtime does not load.

    Args:
        path: of the file.
        error: of ONNX Runtime.
        missing: names of files in which the model says that weights are, and that are not there.
    """
    text = str(error)
    if missing and "xternal data" in text:
        return (
            f"{path} keeps its weights in {', '.join(sorted(missing))}, which is not beside it; "
            f"{lies_in(path.parent)}: copy the file there under the name that it had when the "
            "model was exported"
        )
    if type(error).__name__ == "InvalidProtobuf" or "No graph was found" in text:
        return not_a_model(path)
    for pattern, cure in CURES:
        found = pattern.search(text)
        if found is not None:
            return f"{path} cannot be loaded: {cure.format(*found.groups())}"
    return f"ONNX Runtime cannot load {path}: {brief(error)}"


def not_a_model(path: Path) -> str:
    """Return the sentence for a file that is no ONNX file, though it is called one."""
    with path.open("rb") as file:
        begin = file.read(32)
    for mark, what in MARKS:
        if begin.startswith(mark):
            return f"{path} is {what}"
    return f"{path} is not a whole ONNX file: it is truncated, damaged or of another format"


def absent_model(path: Path) -> str:
    """Return the sentence for a version without its model file: what lies there and what to do."""
    if path.is_dir():
        return f"{path} is a folder: the ONNX file itself was expected there"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is no file"
    said = f"{path} does not exist or is not a file"
    folder = path.parent
    try:
        others = sorted(other for other in folder.iterdir() if not other.name.startswith("."))
    except OSError:
        return said
    files = [other for other in others if other.is_file()]
    named = next((other for other in files if other.suffix in {".onnx", ".ort"}), None)
    if named is not None:
        return f"{said}; there is {named.name}: rename it to model{named.suffix}"
    for other in others:
        if maker := maker_of(other):
            return f"{said}; there is {other.name}, which is {maker}"
    return f"{said}; {lies_in(folder)}: an ONNX file of that name was expected"


def maker_of(path: Path) -> str:
    """Return whose file it is by its name, and what to do with it; "" if the name tells nothing."""
    return MAKERS.get(path.suffix) or MAKERS.get(path.name) or ""


def lies_in(folder: Path) -> str:
    """Say which files a folder holds, the first few of them."""
    names = sorted(other.name for other in folder.iterdir())
    if not names:
        return "the folder is empty"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"the folder holds {', '.join(names[:SHOWN])}{more}"
