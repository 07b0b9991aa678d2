"""A PyTorch module as ONNX with a free batch dimension, compared with PyTorch on rows."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd_engines.conversion.comparing import Distance, distances
from inferd_engines.conversion.errors import (
    BadData,
    ConversionFailed,
    Differs,
    Unsupported,
    needing,
)
from inferd_engines.conversion.quantization import answers_of
from inferd_engines.conversion.rows import BATCH, Answers, Rows, read_arrays
from inferd_engines.engine import Array
from inferd_engines.onnx_errors import brief

EXAMPLES = 2
"""Rows that the exporter is shown: with one it would take the batch dimension for fixed."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An ONNX file, and how far it is from PyTorch."""

    content: bytes
    distances: Mapping[str, Distance]
    answers: Answers
    rows: Rows


def export(
    checkpoint: Path,
    loader: str,
    data: Path,
    outputs: Sequence[str],
    tolerance: float,
    ran: Callable[[], object] = lambda: None,
) -> Exported:
    """Export what a loader function makes of a checkpoint.

    Args:
        checkpoint: file that the function is given.
        loader: FILE.py:FUNCTION or MODULE:FUNCTION, which returns a torch.nn.Module.
        data: .npz file of rows; its arrays are the module's arguments, in their order.
        outputs: names of the outputs.
        tolerance: how far an answer may be, relative and absolute.
        ran: called after each run.

    Raises:
        ConversionFailed: a file cannot be read, the module not exported, or it differs.
        OSError: there is no room for temporary files.
    """
    with needing("train"):
        import onnxscript  # noqa: F401 torch.onnx needs it
        import torch
    if not checkpoint.is_file():
        raise ConversionFailed(f"{checkpoint} does not exist or is not a file")
    rows = example_rows(data)
    module = loaded(loader, checkpoint)
    # Of an exported graph it returns nothing.
    module.eval()
    with torch.no_grad():
        wanted = torch_answers(module, rows, outputs)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.onnx"
        write(module, rows, outputs, made)
        found = answers_of(made, rows, ran)
        content = made.read_bytes()
    refuse_differing(wanted, found, tolerance)
    return Exported(content, distances(wanted, found), found, rows)


def refuse_differing(wanted: Answers, found: Answers, tolerance: float) -> None:
    """Refuse answers that are not PyTorch's.

    Raises:
        Differs: they have other names, shapes or values.
    """
    apart = distances(wanted, found)
    for name, array in wanted.items():
        if not np.allclose(found[name], array, rtol=tolerance, atol=tolerance, equal_nan=True):
            text = f"the output {name!r} is off by {apart[name].worst:.3g} from PyTorch's"
            raise Differs(f"{text}, and --tolerance allows {tolerance:g}")


def example_rows(data: Path) -> Rows:
    """Read rows for a module, which does not say what it takes.

    Raises:
        BadData: it is no such file, or has no two rows.
    """
    arrays = read_arrays(data)
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or min(counts) < EXAMPLES:
        raise BadData(f"each array of {data.name} has the same number of rows, {EXAMPLES} or more")
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise BadData(f"{data.name}: {name!r} has NaN or infinity")
    return Rows(arrays, BATCH)


def loaded(loader: str, checkpoint: Path) -> Any:
    """Return the module that the loader function makes of a checkpoint.

    Raises:
        ConversionFailed: there is no such function, or it failed.
    """
    place, _, name = loader.rpartition(":")
    try:
        function = getattr(imported(place), name)
        module = function(checkpoint)
    except Exception as error:
        text = f"{loader} failed: {type(error).__name__}: {brief(error)}"
        raise ConversionFailed(text) from error
    if not hasattr(module, "eval"):
        raise ConversionFailed(f"{loader} returned {type(module).__name__}, no torch.nn.Module")
    return module


def imported(place: str) -> Any:
    """Import a module by its name, or a file."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    name = Path(place).stem
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None or not Path(place).is_file():
        raise FileNotFoundError(f"{place} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def torch_answers(module: Any, rows: Rows, outputs: Sequence[str]) -> Answers:
    """Return PyTorch's own answers by the names of the outputs.

    Raises:
        ConversionFailed: the module does not take the rows, or has other outputs.
    """
    import torch

    found: list[Sequence[Array]] = []
    for inputs in rows.batches():
        try:
            result = module(*(torch.from_numpy(array) for array in inputs.values()))
        except Exception as error:
            raise BadData(f"the module does not take these rows: {brief(error)}") from error
        tensors = result if isinstance(result, tuple | list) else (result,)
        found.append([tensor.numpy() for tensor in tensors])
    if len(found[0]) != len(outputs):
        text = f"the module has {len(found[0])} outputs, and {len(outputs)} names were given"
        raise ConversionFailed(f"{text}: --output NAME for each")
    joined = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return dict(zip(outputs, joined, strict=True))


def write(module: Any, rows: Rows, outputs: Sequence[str], target: Path) -> None:
    """Write a module as one ONNX file, its first dimension free and called `batch`.

    Raises:
        Unsupported: PyTorch cannot export it so.
        OSError: there is no room.
    """
    import torch

    # It warns of packages that the module has nothing to do with.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    first = rows.first(EXAMPLES).inputs
    batch = torch.export.Dim("batch")
    try:
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in first.values()),
            str(target),
            input_names=list(first),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in first),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except OSError:
        raise
    except Exception as error:
        raise Unsupported(f"PyTorch cannot export this module: {brief(error)}") from error
