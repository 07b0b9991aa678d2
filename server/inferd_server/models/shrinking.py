"""An engine that gives memory back once its requests have become small again.

ONNX Runtime keeps what a run needed for the next one, and so the most that any request ever took.
Measured (docs/onnxruntime.md): one small run that shrinks its arena, and a trim of the heap, bring
nearly all of it back; shrinking after every run doubles the peak, since the heap is cut to pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from inferd.tensors import Array
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Engine, EngineError, Overlapping, Shrinking

log = logging.getLogger(__name__)
QUIET_S = 10.0
"""Seconds without a large run after which a small one gives memory back."""
LARGE_PART, SMALL_PART = 2, 4
"""Of the largest run: from this part on a run is large, up to this one it is small."""


class Sizes:
    """The sizes of an engine's runs since it gave memory back. One thread at a time."""

    def __init__(self) -> None:
        self._most = 0
        self._last_large = 0.0

    def over(self, size: int, now: float) -> bool:
        """Count a run, and return True if large ones were long ago and this is a small one.

        Args:
            size: bytes of its inputs.
            now: monotonic seconds.
        """
        if size * LARGE_PART >= self._most:
            self._most, self._last_large = max(size, self._most), now
            return False
        if size * SMALL_PART > self._most or now - self._last_large < QUIET_S:
            return False
        self._most, self._last_large = size, now
        return True


class ShrinkingEngine(Delegate):
    """Shrinks behind the first small run after large ones.

    Where a model is idle, that is its health trial.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float], give_back: Callable[[], None]
    ) -> None:
        """Watch an engine.

        Args:
            engine: opened.
            clock: monotonic seconds.
            give_back: returns to the system what the allocator keeps.
        """
        super().__init__(engine)
        self._clock = clock
        self._give_back = give_back
        self._sizes: Sizes | None = Sizes()

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's."""
        results = super().run(inputs, outputs, rows)
        if self._sizes is not None:
            size = sum(array.nbytes for array in inputs.values())
            if self._sizes.over(size, self._clock()):
                self._shrink(inputs)
        return results

    def _shrink(self, inputs: Mapping[str, Array]) -> None:
        try:
            self.shrink(inputs)
        except EngineError as error:
            if error.fatal:
                raise
            # As one that keeps nothing, which says so each time.
            log.debug("an engine does not shrink", extra={"why": str(error)})
            self._sizes = None
        else:
            self._give_back()


def shrinking(engine: Engine, clock: Callable[[], float], give_back: Callable[[], None]) -> Engine:
    """Return an engine that gives memory back; the same one if it cannot."""
    if not isinstance(engine, Shrinking) or isinstance(engine, Overlapping):
        return engine
    return ShrinkingEngine(engine, clock, give_back)
