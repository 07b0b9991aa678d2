"""DataFrames as inputs, of pandas or whatever has its columns: nothing of them is imported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from inferd.tensors import Array

from inferd_client.conversion import converted
from inferd_client.information import ModelMetadata, TensorInfo


class Frame(Protocol):
    """What of a DataFrame is used."""

    @property
    def columns(self) -> Iterable[Any]:
        """Names of the columns, in their order."""

    def to_numpy(self) -> Any:
        """Return all of it as an array; not used, but tells a DataFrame from others."""

    def __getitem__(self, name: Any) -> Any:
        """Return one column."""


def is_frame(value: object) -> bool:
    """Tell whether a value is a DataFrame."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def matrix(frame: Frame, info: TensorInfo) -> Array:
    """Return a DataFrame as [rows, columns] of an input's datatype, columns in their order.

    Raises:
        ValueError: a value does not fit; says in which column.
    """
    columns = [_column(frame, name, info) for name in frame.columns]
    return np.stack(columns, axis=1) if columns else np.empty((0, 0), info.dtype)


def tensors(frame: Frame, metadata: ModelMetadata) -> dict[str, Array]:
    """Return the inputs of a model: all columns for its only one, or a column for each by name.

    Raises:
        ValueError: a value does not fit, or the columns are not the inputs.
    """
    if len(metadata.inputs) == 1:
        return {metadata.inputs[0].name: matrix(frame, metadata.inputs[0])}
    known = {info.name: info for info in metadata.inputs}
    given = list(frame.columns)
    lacking = [name for name in known if name not in given]
    strange = [name for name in given if name not in known]
    if lacking or strange:
        raise ValueError(
            f"{metadata.name} takes the columns {', '.join(known)}"
            + (f"; missing: {', '.join(lacking)}" if lacking else "")
            + (f"; unknown: {', '.join(map(str, strange))}" if strange else "")
        )
    return {
        name: _shaped(_column(frame, name, info), len(info.shape)) for name, info in known.items()
    }


def _column(frame: Frame, name: Any, info: TensorInfo) -> Array:
    try:
        return converted(frame[name].to_numpy(), info)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r}: {error}") from error


def _shaped(column: Array, dimensions: int) -> Array:
    return column.reshape(-1, *[1] * (dimensions - 1))
