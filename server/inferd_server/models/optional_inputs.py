"""An engine whose inputs are also those that a caller may leave out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Array, Engine, EngineError, Overridable, Signature, Tensor


def with_optional_inputs(engine: Engine, *, batched: bool) -> Engine:
    """Return an engine that always gets a value for each of its optional inputs.

    Args:
        engine: opened.
        batched: requests share runs.
    """
    optional = tuple(engine.overridable) if isinstance(engine, Overridable) else ()
    return OptionalInputs(engine, optional, batched) if optional else engine


class OptionalInputs(Delegate):
    """Takes one value of an optional input for each row, as rows travel, and runs with it once."""

    def __init__(self, engine: Engine, optional: tuple[Tensor, ...], batched: bool) -> None:
        super().__init__(engine)
        self._names = frozenset(tensor.name for tensor in optional)
        self._batched = batched
        self._signature = replace(engine.signature, inputs=(*engine.signature.inputs, *optional))

    @property
    def signature(self) -> Signature:
        """With the optional inputs behind the others."""
        return self._signature

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's.

        Raises:
            EngineError: rows of the batch have other values, which no run can have.
        """
        if self._batched:
            inputs = {
                name: self._only(name, array) if name in self._names else array
                for name, array in inputs.items()
            }
        return self._engine.run(inputs, outputs, rows)

    def _only(self, name: str, array: Array) -> Array:
        """Return the one value that all rows of an input have."""
        rows = array.reshape(len(array), -1).view(np.uint8)
        if (rows != rows[:1]).any():
            raise EngineError(f"input {name!r} has several values in one batch")
        return array[:1].reshape(array.shape[1:])
