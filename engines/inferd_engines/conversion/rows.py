"""Rows of a model's inputs, read from an .npz file and run through engines in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from inferd_engines.arrays import NOT_NPZ, read_npz
from inferd_engines.conversion.errors import BadData, Unsupported
from inferd_engines.engine import Array, Engine, Signature, Tensor

Answers: TypeAlias = Mapping[str, Array]
"""Outputs by name, for all rows."""
BATCH = 32
"""Rows in a run, where the model leaves their number free."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs by name, each with the same number of rows along its first dimension."""

    inputs: Mapping[str, Array]
    batch: int
    """Rows in a run."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> Rows:
        """Return at most so many rows, in whole batches where their size is the model's."""
        return Rows({name: array[:count] for name, array in self.inputs.items()}, self.batch)

    def batches(self) -> Iterator[Mapping[str, Array]]:
        """Yield the inputs of one run after the other."""
        for start in range(0, len(self), self.batch):
            rows = slice(start, start + self.batch)
            yield {name: array[rows] for name, array in self.inputs.items()}


def read_rows(path: Path, signature: Signature) -> Rows:
    """Read rows for a model from an .npz file that has an array for each input.

    Raises:
        BadData: it is no such file, or its arrays are not rows of the inputs.
        Unsupported: an input has no rows.
    """
    arrays = read_arrays(path)
    names = [tensor.name for tensor in signature.inputs]
    if missing := [name for name in names if name not in arrays]:
        there = ", ".join(sorted(arrays)) or "nothing"
        raise BadData(f"{path.name} has no array {missing[0]!r}, which is an input; it has {there}")
    for tensor in signature.inputs:
        check_input(path.name, arrays[tensor.name], tensor)
    counts = {name: len(arrays[name]) for name in names}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise BadData(f"{path.name}: the inputs differ in their numbers of rows: {told}")
    batch = batch_of(signature)
    if counts[names[0]] % (batch or 1):
        raise BadData(f"{path.name} has {counts[names[0]]} rows, and the model takes {batch} a run")
    return Rows({name: arrays[name] for name in names}, batch or BATCH)


def read_arrays(path: Path) -> dict[str, Array]:
    """Read arrays by name.

    Raises:
        BadData: it is no .npz file.
    """
    try:
        return read_npz(path)
    except FileNotFoundError as error:
        raise BadData(f"{path} does not exist") from error
    except NOT_NPZ as error:
        raise BadData(f"{path.name} is no .npz file of arrays: {error}") from error


def check_input(file: str, array: Array, tensor: Tensor) -> None:
    """Refuse an array that is not rows of an input.

    Raises:
        BadData: its datatype, shape or values are wrong, or it is empty.
        Unsupported: the input has no dimension for rows.
    """
    name, wanted = tensor.name, ["?" if size is None else size for size in tensor.shape]
    if not tensor.shape:
        raise Unsupported(f"the input {name!r} is a single value, and has no rows")
    if array.dtype != tensor.dtype:
        raise BadData(f"{file}: {name!r} is {array.dtype}, and the model takes {tensor.dtype}")
    # How many rows there are is another question than what one of them looks like.
    pairs = zip(array.shape[1:], tensor.shape[1:], strict=False)
    if array.ndim != len(tensor.shape) or any(b not in (None, a) for a, b in pairs):
        shape = ", ".join(map(str, wanted))
        raise BadData(f"{file}: {name!r} has shape {list(array.shape)}, not [{shape}]")
    if not array.size:
        raise BadData(f"{file}: {name!r} is empty")
    if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise BadData(f"{file}: {name!r} has NaN or infinity in row {row}")


def batch_of(signature: Signature) -> int | None:
    """Return how many rows the model takes in a run; None: as many as it is given."""
    sizes = {tensor.shape[0] for tensor in signature.inputs} - {None}
    if len(sizes) > 1:
        raise Unsupported("the inputs of the model differ in their first dimension")
    return next(iter(sizes), None)


def answers(engine: Engine, rows: Rows, ran: Callable[[], object] = lambda: None) -> Answers:
    """Return every output for all rows, by name.

    Args:
        engine: of the model.
        rows: its inputs.
        ran: called after each run.

    Raises:
        EngineError: a run failed.
        Unsupported: an output has no rows.
    """
    found: list[Mapping[str, Array]] = []
    for inputs in rows.batches():
        count = len(next(iter(inputs.values())))
        outputs = engine.run(inputs, {}, count)
        for name, array in outputs.items():
            if array.shape[:1] != (count,):
                raise Unsupported(f"the output {name!r} has no row for each row of the inputs")
        # An engine may use the memory of its outputs again.
        found.append({name: np.array(array) for name, array in outputs.items()})
        ran()
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}
