"""The scheduler answers nearly as many in time as one that knows what every run costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.scheduling.__main__ import main, simulated
from benchmarks.scheduling.loads import SLOW_S, Cell, as_served, cells, uneven
from benchmarks.scheduling.oracle import Outcome, ideal

COUNT = 2500
"""Requests of a cell, but where the engine changes: there it is three changes."""
LEARNING_RUNS = 8
"""Full runs, those of the dearer shape, after which it is known what runs cost."""
UNEVEN_LOSS = 0.05
"""What may be lost below capacity where nobody can know what a run takes; above it much is won."""
SHORT = 1.4
"""Deadline in single runs below which a tenth may be lost, and else a twentieth."""


def count_of(cell: Cell) -> int:
    return int(cell.load * cell.engine.rate * 3.5 * SLOW_S) if cell.slow else COUNT


def lateness(outcome: Outcome, cell: Cell) -> tuple[float, float]:
    """Return the part of late ones among those served: in a second after a change, and else."""

    def after(at: float) -> bool:
        return cell.slow and at >= SLOW_S and at % SLOW_S < 1.0

    def steady(at: float) -> bool:
        return at >= LEARNING_RUNS * cell.cost(cell.shapes - 1, cell.engine.most) and not after(at)

    def part(counts: Callable[[float], bool]) -> float:
        return sum(map(counts, outcome.late)) / max(1, sum(map(counts, outcome.served)))

    return part(after), part(steady)


@pytest.mark.parametrize(
    "cell", list(cells()), ids=lambda cell: f"{cell.engine.title}: {cell.title}"
)
def test_as_many_are_in_time_as_ideal_admission_brings_and_hardly_any_is_late(cell: Cell) -> None:
    count = count_of(cell)
    bar = ideal(cell, cell.arrivals(count), "arrival").goodput
    for split in (False, True):
        outcome = simulated(cell, count, split=split)
        assert outcome.goodput >= (0.9 if cell.runs <= SHORT else 0.95) * bar
        after, steady = lateness(outcome, cell)
        assert after <= 0.05
        assert steady <= 0.01


@pytest.mark.parametrize(
    "cell", list(uneven()), ids=lambda cell: f"{cell.engine.title}: {cell.title}"
)
def test_hardly_fewer_are_in_time_than_if_nobody_were_refused_though_runs_are_uneven(
    cell: Cell,
) -> None:
    unrefused = ideal(cell, cell.arrivals(COUNT), "none").goodput
    for split in (False, True):
        assert simulated(cell, COUNT, split=split).goodput >= unrefused - UNEVEN_LOSS


@pytest.mark.parametrize(
    "cell", list(as_served()), ids=lambda cell: f"{cell.engine.title}: {cell.title}"
)
def test_a_crowd_whose_runs_vary_a_little_leaves_few_late_by_a_hair(cell: Cell) -> None:
    even = replace(cell, spread=0.0, way=0.0)
    bar = ideal(even, even.arrivals(COUNT), "arrival").goodput
    for split in (False, True):
        assert (
            simulated(cell, COUNT, split=split).goodput >= (0.85 if cell.runs <= 4 else 0.9) * bar
        )


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len([*cells(), *as_served(), *uneven()])
    assert all(line.count("|") == lines[0].count("|") for line in lines)
