"""Jobs as the front makes them, and the callers who get the answers."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import RowSpec
from inferd_server.batching.job import Job
from inferd_server.batching.slots import Arena, Slot
from inferd_server.errors import InferdError
from inferd_server.monitoring.phases import Phases

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


class CallersJob(Job):
    """A job that its caller answers for."""

    delay_at = float("inf")

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    def _succeed(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        self._caller.finish(outputs, phases)

    def _refuse(self, error: InferdError) -> None:
        self._caller.fail(error)


def placed(
    slot: Slot,
    key: Hashable,
    arrived: float,
    deadline: float | None,
    caller: Caller,
    level: int = 0,
) -> Job:
    """Return a job with its rows in a slot."""
    job = CallersJob(caller)
    job.place(slot, key, arrived, deadline, level)
    return job


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
    return placed(slot, key, arrived, deadline, caller)
