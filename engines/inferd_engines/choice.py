"""Which engine serves a model: the first of several that can, and never silently."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from inferd_engines.engine import Array, Engine, EngineError, EngineOptions, Opener, Signature

log = logging.getLogger(__name__)


class FirstOf:
    """An opener that tries others in order."""

    def __init__(self, openers: Sequence[tuple[str, Opener]]) -> None:
        """Know them by what the log calls them, most wanted first."""
        self._openers = openers

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open the first engine that can be; its reason tells of those that could not.

        Raises:
            EngineError: none can, or one failed so that this process must not go on.
        """
        refusals: list[str] = []
        for name, opener in self._openers:
            try:
                engine = opener(path, options)
            except EngineError as error:
                if error.fatal:
                    raise
                log.warning("an engine refused", extra={"engine": name, "why": str(error)})
                refusals.append(f"{name}: {error}")
            else:
                return Instead(engine, "; ".join(refusals)) if refusals else engine
        raise EngineError("; ".join(refusals) or "there is no engine to try")


class Instead:
    """An engine that serves in the place of others, and says why."""

    def __init__(self, engine: Engine, reason: str) -> None:
        self._engine = engine
        self.reason = "; ".join(filter(None, (reason, engine.reason)))

    @property
    def signature(self) -> Signature:
        """As the engine's."""
        return self._engine.signature

    @property
    def name(self) -> str:
        """As the engine's."""
        return self._engine.name

    @property
    def steady(self) -> bool:
        """As the engine's."""
        return self._engine.steady

    @property
    def buckets(self) -> Sequence[int]:
        """As the engine's."""
        return self._engine.buckets

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's."""
        return self._engine.run(inputs, outputs, rows)

    def warm(self, rows: int) -> None:
        """As the engine's."""
        self._engine.warm(rows)

    def memory(self) -> int:
        """As the engine's."""
        return self._engine.memory()

    def close(self) -> None:
        """As the engine's."""
        self._engine.close()
