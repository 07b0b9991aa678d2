"""A model's graph in the precision that a plan shall have: where TensorRT 11 takes it from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.errors import BuildFailed

QUANTISED_TYPES = frozenset({"int8", "fp8"})
QUANTISED = "DequantizeLinear"


@contextmanager
def in_precision(model: Path, precision: str, content: bytes | None = None) -> Iterator[Path]:
    """Give a file with the graph in this precision; inputs and outputs keep their types.

    Args:
        model: ONNX file.
        precision: of its graph.
        content: of a file that must not get to a disk, which is only looked at; None: read it.

    Sources: `onnxruntime.transformers.float16` for fp16, ModelOpt's AutoCast for bf16.

    Raises:
        BuildFailed: the package that converts is not installed, or int8 or fp8 is asked of a
            graph without Q/DQ nodes.
    """
    if content is not None:
        check_in_memory(content, precision, model.name)
        yield model
        return
    if precision in {"fp32", "tf32"}:
        yield model
        return
    if precision in QUANTISED_TYPES:
        check_quantised(model.read_bytes(), precision, model.name)
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / model.name
        convert = half if precision == "fp16" else brain
        convert(model, target)
        yield target


def check_in_memory(content: bytes, precision: str, name: str) -> None:
    """Refuse a precision that a model cannot have without a disk; a sealed one must do without.

    Args:
        content: of an ONNX file.
        precision: that is asked of it.
        name: of the file.

    Raises:
        BuildFailed: it has not that precision already.
    """
    if precision in QUANTISED_TYPES:
        check_quantised(content, precision, name)
    elif precision not in {"fp32", "tf32"}:
        raise BuildFailed(
            f"{name} is sealed, and is converted to {precision} on a disk only: convert it before "
            "it is sealed"
        )


def half(model: Path, target: Path) -> None:
    """Write a model with its floats as FP16.

    Raises:
        BuildFailed: the package `onnx` is missing.
    """
    onnx = needed("onnx", "fp16")
    float16 = needed("onnxruntime.transformers.float16", "fp16")
    loaded = onnx.load(str(model))
    converted = float16.convert_float_to_float16(loaded, keep_io_types=True)
    onnx.save(converted, str(target))


def brain(model: Path, target: Path) -> None:
    """Write a model with its floats as BF16 where AutoCast finds that safe.

    Raises:
        BuildFailed: ModelOpt is missing.
    """
    onnx = needed("onnx", "bf16")
    autocast = needed("modelopt.onnx.autocast", "bf16")
    converted = autocast.convert_to_mixed_precision(
        onnx_path=str(model), low_precision_type="bf16", keep_io_types=True
    )
    onnx.save(converted, str(target))


def check_quantised(content: bytes, precision: str, name: str) -> None:
    """Refuse a graph whose weights and activations nobody quantised.

    Args:
        content: of an ONNX file.
        precision: that is asked of it.
        name: of the file.

    Raises:
        BuildFailed: it has no Q/DQ nodes.
    """
    onnx = needed("onnx", precision)
    loaded = onnx.load_from_string(content)
    if not any(node.op_type == QUANTISED for node in loaded.graph.node):
        raise BuildFailed(
            f"{name} has no Q/DQ nodes, which {precision} comes from: quantise it first"
        )


def needed(name: str, precision: str) -> Any:
    """Import what a conversion needs.

    Raises:
        BuildFailed: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise BuildFailed(f"precision {precision} needs the package {name}: {error}") from error
