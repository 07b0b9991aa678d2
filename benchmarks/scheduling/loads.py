"""The loads that come, and what they cost: engines, arrivals and the cells of the table."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SLOW_S, SLOWER = 10.0, 8.0
"""Seconds after which a disturbed engine changes, and how many times slower it is then."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs cost, in seconds."""

    title: str
    fixed: float
    """Of a run."""
    by_row: float
    """Of each of its rows."""
    most: int
    """Rows of a batch."""

    def seconds(self, rows: int) -> float:
        """Return what a run takes."""
        return self.fixed + self.by_row * rows

    @property
    def rate(self) -> float:
        """Rows a second at most."""
        return self.most / self.seconds(self.most)


ENGINES = (
    Engine("5 + 1 ms a row, 32", 0.005, 0.001, 32),
    Engine("20 ms, 8", 0.02, 0.0, 8),
    Engine("20 ms a row, 8", 0.0, 0.02, 8),
)
DEAR = 10
"""How many times as long a run of the dearer shape takes."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes; times in seconds."""

    at: float
    deadline: float
    shape: int = 0
    """Runs of shape 1 cost DEAR times as much."""
    level: int = 0
    rows: int = 1
    leaves: float = float("inf")
    """When its caller goes away."""
    trial: bool = False
    way: float = 0.0
    """What its answer takes to its caller, of which the server knows nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One load on one engine."""

    engine: Engine
    load: float
    """Rows that come, as a part of what the engine can do."""
    runs: float
    """The deadline, in runs of one row."""
    slow: bool = False
    """Every other SLOW_S the engine is SLOWER."""
    shapes: int = 1
    burst: int = 1
    """Requests that come at once."""
    noise: float = 0.001
    """Part of a run by which it may take longer."""
    spread: float = 0.0
    """Standard deviation of the logarithm of what runs take."""
    way: float = 0.0
    """Part of the deadline that answers are on their way."""

    @property
    def title(self) -> str:
        """What is special of it."""
        marks = [f"{self.load:g}, {self.runs:g}"]
        marks += ["slow phases"] * self.slow
        marks += [f"bursts of {self.burst}"] * (self.burst > 1)
        marks += ["two shapes"] * (self.shapes > 1)
        marks += ["uneven runs"] * (self.spread == UNEVEN)
        marks += ["as on a server"] * (self.way > 0)
        return ", ".join(marks)

    def cost(self, shape: int, rows: int) -> float:
        """Return what a run takes on an undisturbed engine."""
        return self.engine.seconds(rows) * (DEAR if shape else 1)

    def arrivals(self, count: int, seed: int = 1) -> list[Arrival]:
        """Draw requests of one row: a Poisson process of bursts."""
        draw, now, found = random.Random(seed), 0.0, []
        # As many runs of either shape: full ones take so long on average.
        slower = (1 + DEAR) / 2 if self.shapes > 1 else 1.0
        rate = self.load * self.engine.rate / slower / self.burst
        while len(found) < count:
            now += draw.expovariate(rate)
            for _ in range(self.burst):
                shape = draw.randrange(self.shapes)
                time = self.runs * self.cost(shape, 1)
                found.append(Arrival(now, now + time, shape, way=self.way * time))
        return found

    def takes(self, seed: int = 2) -> Callable[[int, int, float], float]:
        """Return what a run takes by shape, rows and the time at which it begins."""
        draw = random.Random(seed)

        def seconds(shape: int, rows: int, now: float) -> float:
            slow = self.slow and int(now // SLOW_S) % 2
            longer = (1 + self.noise * draw.random()) * draw.lognormvariate(0, self.spread)
            return self.cost(shape, rows) * (SLOWER if slow else 1.0) * longer

        return seconds


TABLE = ((0.3, 1.4), (0.7, 2.0), (0.7, 4.0), (1.3, 4.0), (1.3, 10.0), (3.0, 10.0))
"""Loads and deadlines."""


UNEVEN = 0.5
"""Spread of runs of which one in twenty takes more than twice as long as those in the middle."""
SERVED, WAY = 0.15, 0.02
"""Spread of the runs of `benchmarks.scheduling.served`, and the part of the time on the way."""


def uneven(spread: float = UNEVEN, way: float = 0.0) -> Iterator[Cell]:
    """Yield loads on engines of which nobody can know what the next run takes."""
    for engine in ENGINES:
        for load, runs in TABLE[2:]:
            yield Cell(engine, load, runs, spread=spread, way=way)


def as_served() -> Iterator[Cell]:
    """Yield loads as real servers have them: runs vary a little, and answers take their way."""
    return uneven(SERVED, WAY)


def cells() -> Iterator[Cell]:
    """Yield loads on engines of which an ideal scheduler knows what runs take."""
    for engine in ENGINES:
        for load, runs in TABLE:
            yield Cell(engine, load, runs)
        yield Cell(engine, 0.6, 20.0, slow=True)
        for load in (0.7, 1.3):
            yield Cell(engine, load, 10.0, shapes=2)
        yield Cell(engine, 0.5, 10.0, burst=12)
