"""Outputs of any form."""

from __future__ import annotations

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array

Form = tuple[str, tuple[int, ...]]
"""Datatype and shape."""


def filled(datatype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Return random elements, NaN among them."""
    generator = np.random.default_rng(seed)
    dtype, count = DATATYPES[datatype], int(np.prod(shape))
    if datatype == BYTES:
        values = np.empty(count, dtype=object)
        values[:] = [generator.bytes(int(size)) for size in generator.integers(0, 300, count)]
        return values.reshape(shape)
    if datatype == "BOOL":
        return generator.integers(0, 2, shape).astype(bool)
    return np.frombuffer(generator.bytes(count * dtype.itemsize), dtype).reshape(shape)
