"""Where the rows of requests live: memory of this process, or memory that another one maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from inferd.tensors import Array

RowSpec: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]
"""dtype and shape of one row of one input."""


class Rows(Protocol):
    """Rows side by side: one array for each input, all of one length."""

    @property
    def arrays(self) -> tuple[Array, ...]:
        """In the order of the signature; the first dimension counts rows."""


class Memory(Protocol):
    """Gives rows. Every method may be called from any thread."""

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return `rows` rows of these shapes, or None when there is no room.

        Args:
            specs: dtype and row shape of every input.
            rows: how many.
            nbytes: what they weigh in all; text more than its arrays of objects tell.
        """

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """True if `take` could give these rows, were nothing held."""

    def give_back(self, rows: Rows) -> None:
        """Nobody uses these rows any more."""

    def trim(self) -> None:
        """Return what nobody uses to the system, where it is not returned by itself."""

    def rounded(self, specs: Sequence[RowSpec], rows: int) -> int:
        """Return how many rows fit into the memory that so many of them take; as many or more."""

    def shares(self, specs: Sequence[RowSpec]) -> bool:
        """True if requests of these shapes may be neighbours in one piece of memory."""


class PrivateRows:
    """Rows in this process."""

    def __init__(self, arrays: tuple[Array, ...]) -> None:
        self.arrays = arrays


class PrivateMemory:
    """This process's own memory, without a bound of its own."""

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return new arrays."""
        del nbytes
        return PrivateRows(tuple(np.empty((rows, *shape), dtype) for dtype, shape in specs))

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """Always."""
        del specs, rows, nbytes
        return True

    def give_back(self, rows: Rows) -> None:
        """Do nothing: arrays go with the last reference."""

    def trim(self) -> None:
        """Do nothing: the allocator is told by others."""

    def rounded(self, specs: Sequence[RowSpec], rows: int) -> int:
        """Return so many: memory comes in any size."""
        del specs
        return rows

    def shares(self, specs: Sequence[RowSpec]) -> bool:
        """Always."""
        del specs
        return True
