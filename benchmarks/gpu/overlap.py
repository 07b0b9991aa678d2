"""Whether two runs that were begun overlap, by CUDA events: the GPU's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd_engines.engine import Array
from inferd_engines.tensorrt.engine import TensorRTEngine

from benchmarks.gpu.bare import NON_BLOCKING


@dataclass(frozen=True, slots=True)
class Overlap:
    """Milliseconds from before the first of two runs begins to when both are done."""

    apart: float
    """The second begins when the first is finished."""
    together: float
    """Both begin before one is finished."""


class TwoRuns:
    """Two runs of an engine with two lanes, timed."""

    def __init__(
        self, engine: TensorRTEngine, inputs: Mapping[str, Array], rows: int, cuda: Any
    ) -> None:
        """Prepare.

        Args:
            engine: that runs.
            inputs: of both runs.
            rows: of each.
            cuda: the module pycuda.driver, with the context current.
        """
        self._engine = engine
        self._inputs = inputs
        self._rows = rows
        # Idle, so that its event is reached at once.
        self._idle = cuda.Stream(NON_BLOCKING)
        self._start, *self._ends = (cuda.Event(cuda.event_flags.DEFAULT) for _ in range(3))

    def measure(self, repeats: int) -> Overlap:
        """Return the medians, taken in turns, after one turn that does not count."""
        turns = [(self.apart(), self.together()) for _ in range(repeats + 1)][1:]
        apart, together = zip(*turns, strict=True)
        return Overlap(statistics.median(apart), statistics.median(together))

    def apart(self) -> float:
        """Return the milliseconds of one run after the other."""
        self._start.record(self._idle)
        for end in self._ends:
            self._finish([self._begin(end)])
        return self._elapsed()

    def together(self) -> float:
        """Return the milliseconds of two runs under way at a time."""
        self._start.record(self._idle)
        self._finish([self._begin(end) for end in self._ends])
        return self._elapsed()

    def _begin(self, end: Any) -> Any:
        pending = self._engine.begin(self._inputs, self._rows)
        end.record(pending.lane.stream)
        return pending

    def _finish(self, runs: Sequence[Any]) -> None:
        for run in runs:
            self._engine.finish(run, {})

    def _elapsed(self) -> float:
        for event in (self._start, *self._ends):
            event.synchronize()
        return max(float(self._start.time_till(end)) for end in self._ends)
