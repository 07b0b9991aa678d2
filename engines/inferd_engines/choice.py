"""Which engine serves a model: the first of several that can, and never silently."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from inferd_engines.delegate import Delegate
from inferd_engines.engine import (
    Engine,
    EngineError,
    EngineOptions,
    Opener,
    PlanState,
    UntrustedFiles,
)

log = logging.getLogger(__name__)


class FirstOf:
    """An opener that tries others in order."""

    def __init__(self, openers: Sequence[tuple[str, Opener]]) -> None:
        """Name them by what the log calls them, most wanted first."""
        self._openers = openers

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open the first engine that can be; its reason tells of those that could not.

        Raises:
            EngineError: none can, or one failed so that this process must not go on, or any would.
        """
        refusals: list[str] = []
        state = PlanState.NONE
        for name, opener in self._openers:
            try:
                engine = opener(path, options)
            except EngineError as error:
                if error.fatal or isinstance(error, UntrustedFiles):
                    raise
                log.warning("an engine refused", extra={"engine": name, "why": str(error)})
                refusals.append(f"{name}: {error}")
                state = error.plan_state if state is PlanState.NONE else state
            else:
                return Instead(engine, "; ".join(refusals), state) if refusals else engine
        raise EngineError("; ".join(refusals) or "there is no engine to try")


class Instead(Delegate):
    """An engine that serves in the place of others, and says why."""

    def __init__(self, engine: Engine, reason: str, plan_state: PlanState) -> None:
        super().__init__(engine)
        self._reason = reason
        self._plan_state = plan_state

    @property
    def reason(self) -> str:
        """Why others do not serve, and what the engine says itself."""
        return "; ".join(filter(None, (self._reason, self._engine.reason)))

    @property
    def plan_state(self) -> PlanState:
        """As the refusal of the most wanted engine told, of those that run plans."""
        return self._plan_state
