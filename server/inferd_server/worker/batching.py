"""Does the first dimension of a model really stand for independent rows?

A model whose file says so by its shapes alone may still mix rows (a mean over the first
dimension, say): batching it would answer wrongly and nobody would notice. So the claim
is tried out before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array
from inferd_engines.engine import Engine, EngineError, Signature

ROWS = 3
# Sizes to try for free dimensions: those of sequences and images. 1 comes last, because
# much that mixes rows has nothing to mix in it (what is normalised over it is zero).
FREE_SIZES = (16, 64, 224, 1)
# Integers below these: digits tell more, and small tables have only 0 and 1.
INTEGERS = (10, 2)
# Kernels for other batch sizes add up in another order; mixing rows differs by far more.
# A share of the value, or of a typical one: all of 1000 probabilities are small.
ROUNDING, NOISE = 1e-2, 1e-6
# Share of whole numbers that may differ, where rounding tipped one over.
TIPPED = 1e-2


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
    """Run rows alone and together, and say how they differ; "" when they agree.

    Raises:
        EngineError: a fatal one.
    """
    for size, below in product(FREE_SIZES, INTEGERS):
        try:
            return trial(engine, trial_inputs(engine.signature, ROWS, size, below, seed))
        except EngineError as error:
            if error.fatal:
                raise
            problem = f"rows could not be tried together: {error}"
    return problem


def trial(engine: Engine, inputs: Mapping[str, Array]) -> str:
    """Run rows alone, together, and together in reverse; say how they differ.

    In reverse, because a sort or a running sum can leave one order as it is.

    Raises:
        EngineError: the engine does not take these inputs.
    """
    alone = [
        engine.run({name: array[i : i + 1] for name, array in inputs.items()}, {}, 1)
        for i in range(ROWS)
    ]
    reverse = {name: np.ascontiguousarray(array[::-1]) for name, array in inputs.items()}
    problem = difference(engine.run(inputs, {}, ROWS), alone)
    return problem or difference(engine.run(reverse, {}, ROWS), alone[::-1])


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
    if together.dtype.kind in "OSUbiu":
        return bool(np.count_nonzero(together != apart) <= TIPPED * apart.size)
    return close(together.astype(np.float64), apart.astype(np.float64))


def close(together: Array, apart: Array) -> bool:
    """True if two arrays of FP64 differ by rounding only."""
    absolute = max(NOISE, ROUNDING * min(typical(together), typical(apart)))
    return np.allclose(together, apart, rtol=ROUNDING, atol=absolute, equal_nan=True)


def typical(array: Array) -> float:
    """Return the size of an array's elements.

    Not their mean: a mask of -1e9 must not make everything else look alike.
    """
    sizes = np.abs(array[np.isfinite(array) & (array != 0)])
    return float(np.median(sizes)) if sizes.size else 0.0


def trial_inputs(
    signature: Signature, rows: int, size: int, below: int, seed: int
) -> Mapping[str, Array]:
    """Draw rows for every input, with `size` for the free dimensions after the first.

    Normal numbers for floats, integers from 0 and less than `below`, digits for BYTES.
    """
    generator = np.random.default_rng(seed)
    inputs = {}
    for tensor in signature.inputs:
        shape = (rows, *(size if fixed is None else fixed for fixed in tensor.shape[1:]))
        inputs[tensor.name] = _draw(tensor.dtype, shape, below, generator)
    return inputs


def _draw(
    dtype: np.dtype[Any], shape: tuple[int, ...], below: int, generator: np.random.Generator
) -> Array:
    if dtype == DATATYPES[BYTES]:
        digits = _integers(shape, 10, generator)
        return np.array([str(d).encode() for d in digits.flat], dtype=object).reshape(shape)
    if dtype.kind in "iub":
        return _integers(shape, 2 if dtype.kind == "b" else below, generator).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _integers(shape: tuple[int, ...], below: int, generator: np.random.Generator) -> Array:
    drawn = generator.integers(0, below, shape)
    # Small rows that happen to be equal would hide how they mix.
    drawn.reshape(shape[0], -1)[:, :1] = np.arange(shape[0])[:, None] % below
    return drawn
