"""A model and what its library answers, as files that the tests read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import copyfile
from typing import Any, TypeAlias

import numpy as np
import onnx

Saved: TypeAlias = str
Arrays: TypeAlias = Mapping[str, Any]


def save(
    folder: Path, name: str, model: onnx.ModelProto | Path, given: Arrays, asked: Arrays
) -> Saved:
    """Write `models/NAME/1/model.onnx` and `answers/NAME.npz`, and return the name.

    Args:
        folder: where both folders are.
        name: of the model.
        model: what a converter made, or the file that it wrote.
        given: rows by the name of the input.
        asked: the library's answers by the name of the output; one whose name the model does
            not have is compared with the output at its place.
    """
    version = folder / "models" / name / "1"
    version.mkdir(parents=True)
    if isinstance(model, Path):
        copyfile(model, version / "model.onnx")
    else:
        (version / "model.onnx").write_bytes(model.SerializeToString())
    answers = folder / "answers"
    answers.mkdir(exist_ok=True)
    arrays = {f"in:{key}": plain(value) for key, value in given.items()}
    arrays |= {f"out:{key}": plain(value) for key, value in asked.items()}
    np.savez(answers / f"{name}.npz", **arrays)
    return name


def plain(value: Any) -> np.ndarray[Any, Any]:
    """Return an array that needs no pickle: objects become text."""
    array = np.asarray(value)
    return array.astype(str) if array.dtype == object else array
