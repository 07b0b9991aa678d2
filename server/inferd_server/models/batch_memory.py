"""How many rows of a batch the memory has room for, found out at load by runs of ever more rows.

A run that takes more than a limit leaves ends the process, and with it everybody's requests. So
the largest batch is reached by doubling, and each step is only taken if what the last one took,
twice over, would still leave room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inferd_engines.engine import EngineError

from inferd_server.memory import headroom_bytes, peak_bytes, resident_bytes

PART = 0.5
"""Of the memory that is left, what a batch may take: callers' requests and answers need some."""


@dataclass(frozen=True, slots=True)
class MemoryGauge:
    """What is known of this process's memory, in bytes."""

    resident: Callable[[], int] = resident_bytes
    """What it holds."""
    peak: Callable[[], int] = peak_bytes
    """The most that it ever held."""
    headroom: Callable[[], int | None] = headroom_bytes
    """What it can still take; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of some rows took, in bytes."""

    rows: int
    grown: int
    """More than before the first run, at its highest."""
    held: int
    """More than before the first run, when it was over: the next run uses it again."""

    def more(self, rows: int) -> float:
        """Return what a run of so many rows would take beside what is held."""
        return self.grown * rows / self.rows - self.held


def rows_with_room(run: Callable[[int], None], most: int, gauge: MemoryGauge) -> int:
    """Return the rows that a batch may have, at most `most`, for its runs to find memory.

    Args:
        run: runs the engine once with so many rows.
        most: rows that are asked for.
        gauge: of the memory.

    Raises:
        EngineError: a fatal one.
    """
    before, rows = gauge.resident(), 1
    while rows < most:
        left = gauge.headroom()
        took = None if left is None else measured(run, rows, before, gauge)
        # Nobody knows what is left, or what the model takes.
        if left is None or took is None:
            return most
        left = gauge.headroom() or 0
        if took.more(most) <= left * PART:
            return most
        larger = min(2 * rows, most)
        if took.more(larger) > left * PART:
            return rows
        rows = larger
    return most


def measured(run: Callable[[int], None], rows: int, before: int, gauge: MemoryGauge) -> Run | None:
    """Return what a run took; None if the model does not take what it is warmed with.

    Raises:
        EngineError: a fatal one.
    """
    peak = gauge.peak()
    try:
        run(rows)
    except EngineError as error:
        if error.fatal:
            raise
        return None
    held, highest = gauge.resident(), gauge.peak()
    # A peak from before says nothing of this run.
    grown = max(held, highest if highest > peak else 0) - before
    return Run(rows, max(0, grown), max(0, held - before))
