"""Tensors that callers send and get in another shape than the model has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from inferd.tensors import Array
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Engine, EngineError, Signature, Tensor

if TYPE_CHECKING:
    from inferd_server.models.triton_config import DeclaredTensor

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """Two shapes of one tensor behind the batch; -1 is any size, the same in both by order."""

    told: Dims
    """As callers know it."""
    own: Dims
    """As the model has it."""

    def to_own(self, array: Array, lead: int) -> Array:
        """Return a caller's array as the model takes it, without a copy; `lead` dimensions stay."""
        return array.reshape(_filled(array.shape, self.told, self.own, lead))

    def to_told(self, array: Array, lead: int) -> Array:
        """Return a model's array as callers know it, without a copy.

        Raises:
            EngineError: it came in a shape that none of these is.
        """
        try:
            return array.reshape(_filled(array.shape, self.own, self.told, lead))
        except (StopIteration, ValueError) as error:
            text = f"an output came as {list(array.shape)}, and reshape says {list(self.own)}"
            raise EngineError(text) from error


def reshape_problem(told: Sequence[int], own: Sequence[int]) -> str:
    """Say why nothing of one shape can have the other; "" if it can."""
    if _blocks(told) == _blocks(own):
        return ""
    return f"dims {list(told)} and shape {list(own)} do not have the same elements"


def _blocks(dims: Sequence[int]) -> list[int]:
    """Return the elements before, between and behind the free dimensions."""
    blocks = [1]
    for size in dims:
        if size < 0:
            blocks.append(1)
        else:
            blocks[-1] *= size
    return blocks


def _filled(shape: Sequence[int], source: Dims, target: Dims, lead: int) -> Dims:
    free: Iterator[int] = iter(
        [size for size, asked in zip(shape[lead:], source, strict=True) if asked < 0]
    )
    return (*shape[:lead], *(next(free) if size < 0 else size for size in target))


def reshaping(engine: Engine, declared: Sequence[DeclaredTensor], *, batched: bool) -> Engine:
    """Return an engine whose tensors have the shapes that a configuration tells callers.

    Args:
        engine: opened.
        declared: tensors, some of them with another shape in the model.
        batched: the first dimension is the batch, which no declared shape has.
    """
    changed = {one.name: one.reshape for one in declared if one.reshape is not None}
    return Reshaped(engine, changed, batched=batched) if changed else engine


class Reshaped(Delegate):
    """Runs with inputs and outputs in the model's own shapes, all of which are views."""

    def __init__(self, engine: Engine, changed: Mapping[str, Reshape], *, batched: bool) -> None:
        super().__init__(engine)
        self._changed = changed
        self._lead = int(batched)
        inputs, outputs = engine.signature.inputs, engine.signature.outputs
        self._signature = Signature(
            tuple(map(self._described, inputs)), tuple(map(self._described, outputs))
        )

    @property
    def signature(self) -> Signature:
        """As callers know it."""
        return self._signature

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's.

        Raises:
            EngineError: as the engine's, or an output came in another shape than declared.
        """
        changed, lead = self._changed, self._lead
        own = {
            name: changed[name].to_own(array, lead) if name in changed else array
            for name, array in inputs.items()
        }
        # A buffer in pieces has no other shape without a copy.
        buffers = {
            name: changed[name].to_own(array, lead) if name in changed else array
            for name, array in outputs.items()
            if name not in changed or array.flags.c_contiguous
        }
        results = self._engine.run(own, buffers, rows)
        return {
            name: self._result(name, array, outputs.get(name)) if name in changed else array
            for name, array in results.items()
        }

    def _result(self, name: str, array: Array, buffer: Array | None) -> Array:
        told = self._changed[name].to_told(array, self._lead)
        if buffer is None or np.shares_memory(buffer, told):
            return told
        np.copyto(buffer, told)
        return buffer

    def _described(self, tensor: Tensor) -> Tensor:
        """Return a tensor as callers know it.

        Raises:
            EngineError: the model has it in another shape than the configuration says.
        """
        reshape = self._changed.get(tensor.name)
        if reshape is None:
            return tensor
        own = tensor.shape[self._lead :]
        if tensor.shape and not fits(reshape.own, own):
            raise EngineError(
                f"reshape says that {tensor.name!r} has {list(reshape.own)}, and the model has "
                f"{[-1 if size is None else size for size in own]}"
            )
        lead = (None,) * self._lead
        shape = (*lead, *(None if size < 0 else size for size in reshape.told))
        axes = (*tensor.axes[: self._lead], *("",) * len(reshape.told))
        return replace(tensor, shape=shape, axes=axes)


def fits(dims: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Tell whether a declared shape, with -1 for any size, may be that of a model."""
    return len(dims) == len(shape) and all(
        size is None or asked in {-1, size} for asked, size in zip(dims, shape, strict=True)
    )
