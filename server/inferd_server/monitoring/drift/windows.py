"""Windows over counts that only grow, which processes have and which add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Key: TypeAlias = tuple[str, int, str]
"""Model, version, and the key of the reference."""


@dataclass(frozen=True, slots=True)
class DriftCounts:
    """Rows that were measured since the start, by the bins of a reference; can be sent."""

    rows: int
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class WindowBounds:
    """When a window is over."""

    rows: int
    """It has so many."""
    seconds: float
    """Or so much time went by, and it has `least` rows."""
    least: int


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A window that is not over: what was counted before it, and when it began."""

    before: DriftCounts
    began: float


def add(first: DriftCounts, second: DriftCounts) -> DriftCounts:
    """Return what two processes counted by one reference."""
    return DriftCounts(
        first.rows + second.rows,
        tuple(
            tuple(a + b for a, b in zip(one, other, strict=True))
            for one, other in zip(first.counts, second.counts, strict=True)
        ),
    )


def add_drift(to: dict[Key, DriftCounts], counts: Mapping[Key, DriftCounts]) -> None:
    """Take in what one more process counted; what is not by the same bins is left out."""
    for key, found in counts.items():
        before = to.get(key)
        if before is None:
            to[key] = found
        elif list(map(len, before.counts)) == list(map(len, found.counts)):
            to[key] = add(before, found)


def subtract(now: DriftCounts, before: DriftCounts) -> DriftCounts:
    """Return what came since."""
    return DriftCounts(
        now.rows - before.rows,
        tuple(
            tuple(a - b for a, b in zip(one, other, strict=True))
            for one, other in zip(now.counts, before.counts, strict=True)
        ),
    )


def shrunk(now: DriftCounts, before: DriftCounts) -> bool:
    """True if something that was counted before is not there any more."""
    return any(
        a < b
        for one, other in zip(now.counts, before.counts, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def advance(
    window: OpenWindow, total: DriftCounts, now: float, bounds: WindowBounds
) -> tuple[OpenWindow, DriftCounts | None]:
    """Return the window that is open now, and the counts of the one that ended, if one did.

    Args:
        window: the open one.
        total: all that was counted so far.
        now: seconds.
        bounds: of windows.
    """
    if shrunk(total, window.before):
        # A version was unloaded, or a process ended before anybody asked what it had counted.
        return OpenWindow(total, now), None
    rows = total.rows - window.before.rows
    over = rows >= bounds.rows or (now - window.began >= bounds.seconds and rows >= bounds.least)
    if not over:
        return window, None
    return OpenWindow(total, now), subtract(total, window.before)
