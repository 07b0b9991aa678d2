"""How often a model was right of late: labels in a sliding window, which those of others join.

A window is made of slices, each the counts of some labels that came one after the other. The
slices of several processes are those of one window, of which the oldest go.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

SLICES = 20
"""Of a full window: by so many parts of it the oldest labels go."""
Z_95 = 1.959963984540054
"""Standard deviations of the interval that has the truth 95 times in 100."""


class Labelled(NamedTuple):
    """One row of which the truth is known."""

    predicted: str
    """The class as metrics name it."""
    actual: str
    right: bool
    """Not the same as equal names: several classes may share one."""
    confidence: float
    """Of the model; NaN where it said nothing."""


ClassCounts: TypeAlias = tuple[int, int, int]
"""How often a class was true, was predicted, and both."""
NONE: ClassCounts = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class LabelWindow:
    """What of the past counts."""

    seconds: float
    labels: int


@dataclass(frozen=True, slots=True)
class LabelSlice:
    """The counts of labels that came one after the other in one process."""

    began: float
    ended: float
    """When the first and the last label came, in seconds since the epoch."""
    labels: int = 0
    right: int = 0
    confident: int = 0
    """Labels with a confidence, and the sum of it."""
    confidence: float = 0.0
    classes: Mapping[str, ClassCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccuracySnapshot:
    """The labels of one model version; can be sent."""

    window: LabelWindow
    slices: tuple[LabelSlice, ...] = ()
    right: int = 0
    """Labels since the start that the model was right on."""
    wrong: int = 0


class AccuracyWindow:
    """Counts the labels of one model version in one process. Any thread may call any method."""

    def __init__(self, window: LabelWindow) -> None:
        """Begin without labels."""
        self._window = window
        self._closed: tuple[LabelSlice, ...] = ()
        self._open: LabelSlice | None = None
        self._right = self._wrong = 0
        self._lock = threading.Lock()

    def add(self, rows: Sequence[Labelled], now: float) -> None:
        """Count labels that came now, in seconds since the epoch."""
        with self._lock:
            for row in rows:
                self._one(row, now)

    def snapshot(self) -> AccuracySnapshot:
        """Return the counts; they do not change any more."""
        with self._lock:
            return AccuracySnapshot(self._window, self._slices(), self._right, self._wrong)

    def _one(self, row: Labelled, now: float) -> None:
        before = self._open
        if before is not None and full(before, self._window, now):
            self._closed, before = recent(self._slices(), self._window), None
        self._open = counted(before or LabelSlice(now, now), row, now)
        self._right += row.right
        self._wrong += not row.right

    def _slices(self) -> tuple[LabelSlice, ...]:
        return self._closed if self._open is None else (*self._closed, self._open)


def full(part: LabelSlice, window: LabelWindow, now: float) -> bool:
    """True if the next label begins another slice."""
    most = max(1, window.labels // SLICES)
    return part.labels >= most or now - part.began >= window.seconds / SLICES


def counted(part: LabelSlice, row: Labelled, now: float) -> LabelSlice:
    """Return a slice with one more label."""
    known = not math.isnan(row.confidence)
    classes = dict(part.classes)
    for name, more in (
        (row.actual, (1, 0, int(row.right))),
        (row.predicted, (0, 1, 0)),
    ):
        classes[name] = _sum(classes.get(name, NONE), more)
    return LabelSlice(
        part.began,
        max(part.ended, now),
        part.labels + 1,
        part.right + row.right,
        part.confident + known,
        part.confidence + (row.confidence if known else 0.0),
        classes,
    )


def recent(slices: Iterable[LabelSlice], window: LabelWindow) -> tuple[LabelSlice, ...]:
    """Return the slices of a window that ends with the newest of them, oldest first."""
    ordered = sorted(slices, key=lambda part: part.ended, reverse=True)
    kept: list[LabelSlice] = []
    labels = 0
    for part in ordered:
        labels += part.labels
        if kept and (labels > window.labels or part.ended <= ordered[0].ended - window.seconds):
            break
        kept.append(part)
    return tuple(reversed(kept))


def add_accuracy(first: AccuracySnapshot, second: AccuracySnapshot) -> AccuracySnapshot:
    """Return the labels of one model version in two processes as those of one."""
    return AccuracySnapshot(
        first.window,
        recent((*first.slices, *second.slices), first.window),
        first.right + second.right,
        first.wrong + second.wrong,
    )


class Proportion(NamedTuple):
    """A share of some labels, with the interval that has the true one in 95 of 100 cases."""

    value: float
    lower: float
    upper: float
    support: int
    """Labels that it is a share of."""


Proportions: TypeAlias = Mapping[str, Proportion]


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """What the labels of a window say of a model version."""

    accuracy: Proportion
    confidence: float | None
    """Of the model, on average; None where it said nothing."""
    precision: Proportions
    """By class: of the rows that were predicted to be of it, those that are."""
    recall: Proportions
    """By class: of the rows that are of it, those that were predicted to be."""


def report(found: AccuracySnapshot, now: float) -> AccuracyReport | None:
    """Return what the labels of a window say; None without labels.

    Args:
        found: of all processes.
        now: seconds since the epoch, when the window ends.
    """
    begin = now - found.window.seconds
    slices = recent((part for part in found.slices if part.ended > begin), found.window)
    labels = sum(part.labels for part in slices)
    if not labels:
        return None
    classes: dict[str, ClassCounts] = {}
    for part in slices:
        for name, counts in part.classes.items():
            classes[name] = _sum(classes.get(name, NONE), counts)
    confident = sum(part.confident for part in slices)
    confidence = sum(part.confidence for part in slices) / confident if confident else None
    return AccuracyReport(
        wilson(sum(part.right for part in slices), labels),
        confidence,
        {name: wilson(right, said) for name, (_, said, right) in classes.items() if said},
        {name: wilson(right, true) for name, (true, _, right) in classes.items() if true},
    )


def wilson(right: int, labels: int, z: float = Z_95) -> Proportion:
    """Return a share of labels with Wilson's score interval.

    Source: Wilson, Probable inference, JASA 22 (1927), without correction for continuity.
    """
    share, square = right / labels, z * z / labels
    middle = (share + square / 2) / (1 + square)
    spread = z / (1 + square) * math.sqrt(share * (1 - share) / labels + square / labels / 4)
    return Proportion(share, max(0.0, middle - spread), min(1.0, middle + spread), labels)


def _sum(first: ClassCounts, second: ClassCounts) -> ClassCounts:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]
