"""Inputs that a plan is tried on: kept beside its model, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inferd_engines.arrays import shape_of
from inferd_engines.engine import Array, EngineError, Signature, Tensor
from inferd_engines.tensorrt.profiles import Profile

GOLDEN = "golden.npz"
"""Inputs beside a model, by name, that its plans are compared on."""


def golden(model: Path) -> list[dict[str, Array]]:
    """Return the inputs that are kept beside a model; none if there are none.

    Raises:
        EngineError: the file cannot be read.
    """
    path = model.parent / GOLDEN
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as found:
            return [{name: found[name] for name in found.files}]
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error


def drawn(
    signature: Signature, profiles: Sequence[Profile], generator: np.random.Generator
) -> list[dict[str, Array]]:
    """Draw a batch for each profile, of the shapes that it is made for most.

    Args:
        signature: of the model.
        profiles: of the plan; none for one without free dimensions.
        generator: of random numbers.
    """
    return [
        {
            tensor.name: draw(tensor, most_often(tensor, profile), generator)
            for tensor in signature.inputs
        }
        for profile in profiles or (Profile(0),)
    ]


def most_often(tensor: Tensor, profile: Profile) -> tuple[int, ...]:
    """Return the shape of an input that a profile is fastest at."""
    found = profile.ranges.get(tensor.name)
    return shape_of(tensor, profile.rows) if found is None else found.most_often


def draw(tensor: Tensor, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Return elements of one input: floats around 0, integers of 0 and 1."""
    if tensor.dtype.kind in "iu":
        return generator.integers(0, 2, shape).astype(tensor.dtype)
    if tensor.dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    return generator.standard_normal(shape).astype(tensor.dtype)
