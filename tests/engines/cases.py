"""Models that every engine must serve alike: as ONNX, as a signature, and in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from inferd.tensors import DATATYPES
from inferd_engines.engine import Array, Signature, Tensor
from onnx import ModelProto

from tests import models
from tests.fakes.engine import Compute, double

BATCH = ("batch", "")


@dataclass(frozen=True, slots=True)
class Case:
    """A model, what an engine must say of it, and what it computes."""

    name: str
    model: ModelProto
    signature: Signature
    compute: Compute

    def inputs(self, rows: int, free: int = 3) -> dict[str, Array]:
        """Return inputs that differ in every row; free dimensions but the first are `free`."""
        return {tensor.name: filled(tensor, rows, free) for tensor in self.signature.inputs}


def filled(tensor: Tensor, rows: int, free: int) -> Array:
    """Return an array of small whole numbers (their decimal text for BYTES)."""
    sizes = [free if size is None else size for size in tensor.shape]
    if tensor.shape[0] is None:
        sizes[0] = rows
    numbers = np.arange(np.prod(sizes, dtype=int)) % 100
    if tensor.dtype == object:
        return np.array([f"é{n}".encode() for n in numbers], dtype=object).reshape(sizes)
    return numbers.reshape(sizes).astype(tensor.dtype)


def echo(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return every INPUT<n> as OUTPUT<n>."""
    return {name.replace("INPUT", "OUTPUT"): array.copy() for name, array in inputs.items()}


def add_and_subtract(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the sum and the difference of INPUT0 and INPUT1."""
    first, second = inputs["INPUT0"], inputs["INPUT1"]
    return {"OUTPUT0": first + second, "OUTPUT1": first - second}


def times_ones(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return INPUT0 [3, 4] times ones [4, 2]."""
    return {"OUTPUT0": inputs["INPUT0"] @ np.ones((4, 2), dtype=np.float32)}


def tensors(
    role: str, count: int, dtype: Any, shape: tuple[int | None, ...], axes: tuple[str, ...]
) -> tuple[Tensor, ...]:
    """Return `count` tensors alike, named by role and number."""
    return tuple(Tensor(f"{role}{i}", np.dtype(dtype), shape, axes) for i in range(count))


def echo_case(datatype: str) -> Case:
    """Return a model that gives back one input [batch, 4] of this datatype."""
    dtype, shape = DATATYPES[datatype], (None, 4)
    signature = Signature(
        tensors("INPUT", 1, dtype, shape, BATCH), tensors("OUTPUT", 1, dtype, shape, BATCH)
    )
    return Case(f"identity {datatype}", models.identity(datatype), signature, echo)


ECHOES = [echo_case(datatype) for datatype in DATATYPES]

ADD_SUB = Case(
    "add_sub",
    models.add_sub(),
    Signature(
        tensors("INPUT", 2, np.int32, (None, 16), BATCH),
        tensors("OUTPUT", 2, np.int32, (None, 16), BATCH),
    ),
    add_and_subtract,
)

FREE_DIMS = Case(
    "free_dims",
    models.free_dims(),
    Signature(
        tensors("INPUT", 1, np.float32, (None, None), ("batch", "sequence")),
        tensors("OUTPUT", 1, np.float32, (None, None), ("batch", "sequence")),
    ),
    double,
)

NO_BATCH = Case(
    "no_batch",
    models.no_batch(),
    Signature(
        tensors("INPUT", 1, np.float32, (3, 4), ("", "")),
        tensors("OUTPUT", 1, np.float32, (3, 2), ("", "")),
    ),
    times_ones,
)

CASES = [*ECHOES, ADD_SUB, FREE_DIMS, NO_BATCH]
