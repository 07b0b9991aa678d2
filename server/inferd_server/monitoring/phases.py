"""The phases of requests that ran, and how long they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

PHASES: Mapping[str, str] = {
    "decode": "reading, checking and copying the request, until it waits",
    "queue": "waiting, but for what follows",
    "batch_wait": "waiting with a free engine, for the batch to fill",
    "gather": "making the batch contiguous, if it is not",
    "compute": "the engine, copies to its device and back among it",
    "reply": "from the engine to the encoded answer: the link, those before it in the batch",
}
"""Names of the phases, in their order, and what they are. They add up to the request's time."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of the engine; times in seconds."""

    rows: int
    waited: float
    """The free engine, for the batch to fill."""
    gather: float
    """Making the batch contiguous."""
    compute: float
    """The engine."""
    queued: float = 0.0
    """How long the request waited that led the batch."""


# Not frozen, which would cost twice as much for every request.
@dataclass(slots=True)
class Phases:
    """Where the time of an executed request went."""

    queue: float
    """Seconds from the slot being filled to the batch being taken."""
    run: Execution
    """The run, shared with the other requests of the batch."""

    def seconds(self, total: float, decode: float) -> tuple[float, ...]:
        """Return the seconds in each of PHASES, in their order; what is left is the reply.

        Args:
            total: from the request's arrival to its encoded answer.
            decode: of those, before it waited.
        """
        queue, run = self.queue, self.run
        # Who came while the engine waited already, waited with it for a part of that time.
        wait = min(queue, run.waited)
        # Times that were subtracted and added again differ in the last bit.
        reply = max(0.0, total - decode - queue - run.gather - run.compute)
        return decode, queue - wait, wait, run.gather, run.compute, reply


@dataclass(frozen=True)
class AnsweredRequests:
    """Requests that ran and were answered, a place of every column each; times in seconds."""

    rows: Sequence[int]
    totals: Sequence[float]
    """From arrival to the encoded answer."""
    decodes: Sequence[float]
    """Of those, before the request waited."""
    phases: Sequence[Phases]
    walls: Sequence[float]
    """When they were answered, since the epoch."""

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of all in each of PHASES, in their order."""
        runs = [each.run for each in self.phases]
        queues = [each.queue for each in self.phases]
        decode, queue = sum(self.decodes), sum(queues)
        gather = sum([run.gather for run in runs])
        compute = sum([run.compute for run in runs])
        waited = [run.waited for run in runs]
        wait = sum(map(min, queues, waited)) if any(waited) else 0.0
        reply = max(0.0, sum(self.totals) - decode - queue - gather - compute)
        return decode, queue - wait, wait, gather, compute, reply

    def seconds_of(self, place: int) -> tuple[float, ...]:
        """Return the seconds of one in each of PHASES, in their order."""
        return self.phases[place].seconds(self.totals[place], self.decodes[place])
