"""Jobs as the front makes them, and the callers who get the answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from inferd.tensors import Array
from inferd_server.errors import InferdError
from inferd_server.scheduler.job import Job, Phases
from inferd_server.scheduler.slot import Arena, RowSpec

ROW: Sequence[RowSpec] = [(np.dtype(np.float32), (4,))]
ANSWERED_WITHIN = 30.0


class Caller:
    """Remembers every answer that it got."""

    def __init__(self) -> None:
        self.outputs: list[Mapping[str, Array]] = []
        self.phases: list[Phases] = []
        self.errors: list[InferdError] = []
        self._answered = threading.Event()

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Take the outputs, as copies: the arrays are the batch's."""
        self.outputs.append({name: array.copy() for name, array in outputs.items()})
        self.phases.append(phases)
        self._answered.set()

    def fail(self, error: InferdError) -> None:
        """Take an error."""
        self.errors.append(error)
        self._answered.set()

    @property
    def answers(self) -> int:
        """How many answers came."""
        return len(self.outputs) + len(self.errors)

    def wait(self) -> Caller:
        """Block until there is an answer."""
        assert self._answered.wait(ANSWERED_WITHIN), "no answer came"
        return self

    @property
    def output(self) -> list[list[float]]:
        """OUTPUT0 of the only answer."""
        assert not self.errors, self.errors
        (outputs,) = self.outputs
        return outputs["OUTPUT0"].tolist()

    @property
    def error(self) -> InferdError:
        """The only answer, which is an error."""
        assert not self.outputs
        (error,) = self.errors
        return error


def rows_of(*values: float) -> list[list[float]]:
    """One row of four equal numbers for each value."""
    return [[value] * 4 for value in values]


def job_of(
    arena: Arena,
    values: Sequence[float],
    caller: Caller | None = None,
    *,
    batched: bool = True,
    arrived: float = 0.0,
    deadline: float | None = None,
) -> Job:
    """Reserve a slot, write one row for each value, and make a job of it.

    A job that does not batch has all its rows in one, as the front does it.
    """
    caller = caller or Caller()
    specs = ROW if batched else [(np.dtype(np.float32), (len(values), 4))]
    slot = arena.reserve(specs, len(values) if batched else 1, 16 * len(values))
    assert slot is not None
    slot.inputs[0][...] = rows_of(*values)
    key = tuple(specs) if batched else id(slot)
    return Job(slot, key, arrived, deadline, caller)
