"""A model's graph in the precision that a plan shall have: where TensorRT 11 takes it from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.errors import BuildFailed

QUANTISED = "DequantizeLinear"


@contextmanager
def in_precision(model: Path, precision: str) -> Iterator[Path]:
    """Give a file with the graph in this precision; inputs and outputs keep their types.

    Sources: `onnxruntime.transformers.float16` for fp16, ModelOpt's AutoCast for bf16.

    Raises:
        BuildFailed: the package that converts is not installed, or int8 or fp8 is asked of a
            graph without Q/DQ nodes.
    """
    if precision in {"fp32", "tf32"}:
        yield model
        return
    if precision in {"int8", "fp8"}:
        check_quantised(model, precision)
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / model.name
        convert = half if precision == "fp16" else brain
        convert(model, target)
        yield target


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


def check_quantised(model: Path, precision: str) -> None:
    """Refuse a graph whose weights and activations nobody quantised.

    Raises:
        BuildFailed: it has no Q/DQ nodes.
    """
    onnx = needed("onnx", precision)
    loaded = onnx.load(str(model), load_external_data=False)
    if not any(node.op_type == QUANTISED for node in loaded.graph.node):
        raise BuildFailed(
            f"{model.name} has no Q/DQ nodes, which {precision} comes from: quantise it first"
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
