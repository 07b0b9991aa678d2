"""The end of a process whose engine failed for good: at once, and nothing is cleaned up."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from inferd.tensors import Array
from inferd_engines.delegate import Delegate
from inferd_engines.engine import Engine, EngineError, EngineOptions, Opener, Overlapping

log = logging.getLogger(__name__)
EXIT_CODE = os.EX_SOFTWARE
"""Of a process that ended itself after a fatal engine error."""
R = TypeVar("R")
End = Callable[[EngineError], None]
"""Ends the process; it does not return, but in tests."""


class EndsWithEngine:
    """An opener whose engines end the process when they fail for good.

    Such an error stays in the CUDA context of the process: every later call fails or hangs,
    `close` among them, and so does the way out of the interpreter. What runs then is not answered
    here; who sent it learns that the process is gone.
    """

    def __init__(self, opener: Opener, end: End) -> None:
        """Guard the engines that `opener` opens."""
        self._opener = opener
        self._end = end

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open an engine.

        Raises:
            EngineError: the model cannot be served, and the process goes on.
        """
        engine = guarded(lambda: self._opener(path, options), self._end)
        kind = GuardedHalves if isinstance(engine, Overlapping) else Guarded
        return kind(engine, self._end)


class Guarded(Delegate):
    """An engine that ends the process when it fails for good."""

    def __init__(self, engine: Engine, end: End) -> None:
        super().__init__(engine)
        self._end = end

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's."""
        return guarded(lambda: self._engine.run(inputs, outputs, rows), self._end)

    def warm(self, rows: int) -> None:
        """As the engine's."""
        guarded(lambda: self._engine.warm(rows), self._end)


class GuardedHalves(Guarded):
    """The same for an engine that runs in halves."""

    def __init__(self, engine: Engine, end: End) -> None:
        super().__init__(engine, end)
        assert isinstance(engine, Overlapping)
        self._halves: Overlapping = engine

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Any:
        """As the engine's."""
        return guarded(lambda: self._halves.begin(inputs, rows), self._end)

    def finish(self, begun: Any, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """As the engine's."""
        return guarded(lambda: self._halves.finish(begun, outputs), self._end)


def guarded(function: Callable[[], R], end: End) -> R:
    """Call a function of an engine, and end the process if it fails for good."""
    try:
        return function()
    except EngineError as error:
        if error.fatal:
            end(error)
        raise


def end_process(error: EngineError) -> None:
    """End this process with `EXIT_CODE`, its log written."""
    log.critical("the engine failed for good: the process ends", extra={"error": str(error)})
    with contextlib.suppress(OSError):
        # Full, most likely.
        sys.stderr.flush()
    # Python's own way out would call into the engine again.
    os._exit(EXIT_CODE)
