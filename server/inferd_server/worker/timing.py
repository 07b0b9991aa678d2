"""How long a model's runs take, tried out at load, and how large its batches should be for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inferd_engines.engine import EngineError

TRIALS = 3
SLOW_S = 0.005
"""A run from which on sharing one saves nothing but the engine's own time."""
GAIN = 1.1
"""How much more rows a second twice the rows have to bring."""


class Warms(Protocol):
    """What can be run on inputs of its own."""

    def warm(self, rows: int) -> None:
        """Run once with so many rows.

        Raises:
            EngineError: it cannot.
        """


def run_seconds(
    engine: Warms, rows: int, clock: Callable[[], float], trials: int = TRIALS
) -> float | None:
    """Time a run, the best of a few; None if the model does not take its inputs.

    Raises:
        EngineError: a fatal one.
    """
    best = None
    for _ in range(trials):
        start = clock()
        try:
            engine.warm(rows)
        except EngineError as error:
            if error.fatal:
                raise
            return None
        seconds = clock() - start
        best = seconds if best is None else min(best, seconds)
    return best


def worthwhile_rows(seconds: Callable[[int], float | None], most: int) -> int:
    """Return the batch size beyond which larger ones bring no more rows a second.

    A slow model that is busy with a few rows already, as networks of convolutions are on a
    processor, gains nothing from more of them: whoever just missed a large batch waits for all
    of it.

    Args:
        seconds: returns the time of a run of so many rows; None if it cannot run.
        most: rows that a batch may have.
    """
    one = seconds(1)
    if one is None or one < SLOW_S:
        return most
    size, for_a_row = 1, one
    while size < most:
        larger = min(2 * size, most)
        taken = seconds(larger)
        if taken is None:
            return most
        if taken / larger > for_a_row / GAIN:
            return size
        size, for_a_row = larger, taken / larger
    return most
