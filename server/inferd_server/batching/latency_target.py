"""Batch size and delay that keep a model's latency below a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from inferd_server.monitoring.phases import Execution

PERIOD_S = 0.5
"""Seconds between changes: what one does has to be seen before the next."""
RUNS = 20
"""Runs that have to be seen before a change."""
ROOM = 0.7
"""Part of the target below which there is room for larger batches."""
SMALLEST_S = 0.0001
"""A delay below this is none."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is steered."""

    rows: int
    """Rows of a batch at most."""
    delay: float
    """Seconds that the oldest request may wait for company."""


@dataclass(frozen=True, slots=True)
class SlowestHundredth:
    """The slowest hundredth of what was seen, in seconds."""

    wait: float
    """In the queue."""
    run: float
    """In the engine."""

    @property
    def total(self) -> float:
        """Both, which may not have been the same request's: at most too much."""
        return self.wait + self.run


def steer(now: Chosen, measured: SlowestHundredth, target: float, bounds: Chosen) -> Chosen:
    """Choose batch size and delay for the next period.

    Too slow: who waits for company waits less. Without such a wait, batches become smaller if it
    is the run that takes long, and larger if it is the queue, because that brings more rows a
    second. With room to spare both grow, which costs least of the processor.

    Args:
        now: what holds.
        measured: under it.
        target: seconds, of the slowest hundredth.
        bounds: the largest values.
    """
    if measured.total > target:
        if now.delay:
            return replace(now, delay=now.delay / 2 if now.delay / 2 >= SMALLEST_S else 0.0)
        if measured.run > measured.wait:
            return replace(now, rows=max(1, now.rows // 2))
        return replace(now, rows=min(bounds.rows, now.rows * 2))
    if measured.total < ROOM * target:
        # Never by more than there is room for.
        most = min(bounds.delay, now.delay + (ROOM * target - measured.total) / 2)
        delay = min(most, max(2 * now.delay, SMALLEST_S))
        return Chosen(min(bounds.rows, now.rows * 2), delay)
    return now


class LatencyTarget:
    """Steers one model version by what its runs tell. For the threads of its instances."""

    def __init__(self, target: float, chosen: Chosen, bounds: Chosen) -> None:
        """Begin.

        Args:
            target: seconds from a request's arrival to the end of its run, of the slowest
                hundredth.
            chosen: what holds at first.
            bounds: the largest values.
        """
        self.chosen = chosen
        self._target = target
        self._bounds = bounds
        self._waits: list[float] = []
        self._runs: list[float] = []
        self._changed = 0.0

    def observe(self, run: Execution, now: float) -> Chosen | None:
        """Take a run in; return what should hold from now on, if that is something else.

        The request that led a batch counts, which waited longest.
        """
        self._waits.append(run.queued)
        self._runs.append(run.gather + run.compute)
        if now - self._changed < PERIOD_S or len(self._runs) < RUNS:
            return None
        measured = SlowestHundredth(slowest(self._waits), slowest(self._runs))
        self._waits, self._runs = [], []
        self._changed = now
        chosen = steer(self.chosen, measured, self._target, self._bounds)
        if chosen == self.chosen:
            return None
        self.chosen = chosen
        return chosen


def slowest(seconds: list[float]) -> float:
    """Return the least of the slowest hundredth."""
    return sorted(seconds)[-max(1, len(seconds) // 100)]
