"""The phases of a request that ran, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass


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
