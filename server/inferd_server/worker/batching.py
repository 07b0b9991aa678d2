"""Does the first dimension of a model really stand for independent rows?

A model whose file says so by its shapes alone may still mix rows (a mean over the first
dimension, say): batching it would answer wrongly and nobody would notice. So the claim
is tried out before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array
from inferd_engines.engine import Engine, EngineError, Signature

ROWS = 3
# Sizes to try for free dimensions: the smallest, then those of sequences and images.
FREE_SIZES = (1, 16, 64, 224)
# Kernels for other batch sizes add up in another order; mixing rows differs by far more.
RELATIVE, ABSOLUTE = 1e-2, 1e-3


@dataclass(frozen=True, slots=True)
class Batching:
    """The batch limit of a model (0: none), and how it was found."""

    max_batch_size: int
    reason: str


def claims_batch(signature: Signature) -> bool:
    """True if every input and output begins with a free dimension, of one name if any."""
    tensors = (*signature.inputs, *signature.outputs)
    if not signature.inputs or any(not t.shape or t.shape[0] is not None for t in tensors):
        return False
    return len({t.axes[0] for t in tensors if t.axes and t.axes[0]}) <= 1


def find_batching(engine: Engine, asked: int | None, default: int, seed: int = 0) -> Batching:
    """Decide whether, and up to which size, requests of this model share a run.

    Args:
        engine: opened.
        asked: the model's own setting; 0: no batch dimension; None: find out.
        default: the limit when the model says nothing.
        seed: of the trial inputs.

    Raises:
        EngineError: the model asks for batches, and its rows are not independent.
    """
    if asked == 0:
        return Batching(0, "max_batch_size is 0 in model.yaml")
    if not claims_batch(engine.signature):
        if asked:
            raise EngineError(
                f"max_batch_size is {asked}, and not all inputs and outputs "
                "begin with one free dimension"
            )
        return Batching(0, "not all inputs and outputs begin with one free dimension")
    problem = rows_problem(engine, seed)
    if problem and asked:
        raise EngineError(f"max_batch_size is {asked}, and {problem}")
    if problem:
        return Batching(0, problem)
    return Batching(asked or default, "rows tried alone and together gave the same answers")


def rows_problem(engine: Engine, seed: int) -> str:
    """Run rows alone and together, and say how they differ; "" when they agree."""
    for size in FREE_SIZES:
        inputs = trial_inputs(engine.signature, ROWS, size, seed)
        try:
            together = engine.run(inputs, {}, ROWS)
            alone = [
                engine.run({name: array[i : i + 1] for name, array in inputs.items()}, {}, 1)
                for i in range(ROWS)
            ]
        except EngineError as error:
            problem = f"rows could not be tried together: {error}"
        else:
            return difference(together, alone)
    return problem


def difference(together: Mapping[str, Array], alone: Sequence[Mapping[str, Array]]) -> str:
    """Say how a batch's outputs differ from those of its rows alone; "" when they agree."""
    for name, array in together.items():
        if array.ndim == 0 or array.shape[0] != ROWS:
            return f"output {name!r} has shape {list(array.shape)} for {ROWS} rows"
        if not same(array, [outputs[name] for outputs in alone]):
            return f"rows of output {name!r} depend on the other rows of their batch"
    return ""


def same(together: Array, alone: list[Array]) -> bool:
    """True if a batch's rows equal the rows run alone, up to rounding."""
    if any(part.shape[:1] != (1,) or part.shape[1:] != together.shape[1:] for part in alone):
        return False
    apart = np.concatenate(alone)
    if together.dtype.kind in "OSUb":
        return bool((together == apart).all())
    return bool(
        np.allclose(
            together.astype(np.float64),
            apart.astype(np.float64),
            rtol=RELATIVE,
            atol=ABSOLUTE,
            equal_nan=True,
        )
    )


def trial_inputs(signature: Signature, rows: int, size: int, seed: int) -> Mapping[str, Array]:
    """Draw rows for every input, with `size` for the free dimensions after the first.

    Normal numbers for floats, zeros and ones for integers, digits for BYTES.
    """
    generator = np.random.default_rng(seed)
    return {
        t.name: _draw(t.dtype, (rows, *(fixed or size for fixed in t.shape[1:])), generator)
        for t in signature.inputs
    }


def _draw(dtype: np.dtype[Any], shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if dtype == DATATYPES[BYTES]:
        digits = generator.integers(0, 10, shape)
        return np.array([str(d).encode() for d in digits.flat], dtype=object).reshape(shape)
    if dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
