"""What was promised to a request at the door, and what the forecast learns from keeping it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

LATE = 0.005
"""Part of the promises that may turn out too short."""
STEP = 0.1
"""By how much one surprise changes what is expected, as a part of it."""
MOST = 3.0
NEAR = 0.9
"""Part of the time until the deadline after which a caller who leaves is one who was let down."""


def stretched(stretch: float, *, longer: bool) -> float:
    """Return by how much more forecasts should be than what was learned.

    It comes to rest where a part of LATE of all requests takes longer than forecast.

    Args:
        stretch: until now.
        longer: a request took longer than that.

    Source: the stochastic approximation of a quantile, Robbins and Monro 1951.
    """
    moved = stretch + STEP * ((1 - LATE) if longer else -LATE)
    return min(MOST, max(1.0, moved))


class Learner(Protocol):
    """Learns from promises."""

    def kept(self, expected: float, took: float) -> None:
        """Note how long a request took, in seconds, beside what was expected."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A request was let in because it was expected to be answered in time."""

    learner: Learner
    expected: float
    """Seconds, as learned, without any stretch."""
    deadline: float
    """Monotonic seconds."""

    def answered(self, took: float) -> None:
        """Tell after how many seconds the answer came."""
        self.learner.kept(self.expected, took)

    def ended(self, took: float, now: float) -> None:
        """Tell after how many seconds the request ended without an answer."""
        # Whoever leaves long before the deadline has reasons of his own.
        if now >= self.deadline - (1 - NEAR) * took:
            self.learner.kept(self.expected, float("inf"))
