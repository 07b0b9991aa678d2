"""A copy of the last request that a model was sent, for trying models that take no zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from inferd.tensors import Array
from inferd_engines.engine import RowSpec

from inferd_server.batching.slots import Slot

LARGEST = 1 << 20
"""Bytes of a request that is copied."""


class OneRow(NamedTuple):
    """One row of every input."""

    specs: tuple[RowSpec, ...]
    inputs: Sequence[Array]
    nbytes: int
    """At most, text included."""


class LastRequest:
    """The first row of a request. Kept on the threads that admit, taken on another."""

    def __init__(self) -> None:
        self._wanted = True
        self._kept: OneRow | None = None

    def keep(self, slot: Slot) -> None:
        """Copy a request that is about to be queued, if it is small and the last copy was taken."""
        if self._wanted and slot.nbytes <= LARGEST:
            self._wanted = False
            rows = [array[:1].copy() for array in slot.inputs]
            specs = tuple((row.dtype, row.shape[1:]) for row in rows)
            self._kept = OneRow(specs, rows, slot.nbytes)

    @property
    def known(self) -> bool:
        """True if there was one."""
        return self._kept is not None

    def take(self) -> OneRow | None:
        """Return one row, and copy the next request; None if there was none yet."""
        self._wanted = True
        return self._kept

    def forget(self) -> None:
        """Drop what turned out to be no input that the model takes, and copy the next request."""
        self._kept = None
        self._wanted = True
