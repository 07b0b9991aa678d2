"""An engine that is another one in all but what a subclass changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd_engines.engine import (
    Array,
    Engine,
    Overridable,
    PlanState,
    Registering,
    Shrinking,
    Signature,
    Tensor,
)


class Delegate:
    """Passes everything on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def signature(self) -> Signature:
        """As the engine's."""
        return self._engine.signature

    @property
    def name(self) -> str:
        """As the engine's."""
        return self._engine.name

    @property
    def version(self) -> str:
        """As the engine's."""
        return self._engine.version

    @property
    def reason(self) -> str:
        """As the engine's."""
        return self._engine.reason

    @property
    def plan_state(self) -> PlanState:
        """As the engine's."""
        return self._engine.plan_state

    @property
    def steady(self) -> bool:
        """As the engine's."""
        return self._engine.steady

    @property
    def buckets(self) -> Sequence[int]:
        """As the engine's."""
        return self._engine.buckets

    @property
    def overridable(self) -> Sequence[Tensor]:
        """As the engine's; none where it has none."""
        return self._engine.overridable if isinstance(self._engine, Overridable) else ()

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's."""
        return self._engine.run(inputs, outputs, rows)

    def register(self, memory: Array) -> bool:
        """As the engine's; False where it does not read memory in place."""
        return isinstance(self._engine, Registering) and self._engine.register(memory)

    def shrink(self, inputs: Mapping[str, Array]) -> None:
        """As the engine's; nothing where it keeps nothing."""
        if isinstance(self._engine, Shrinking):
            self._engine.shrink(inputs)

    def warm(self, rows: int) -> None:
        """As the engine's."""
        self._engine.warm(rows)

    def memory(self) -> int:
        """As the engine's."""
        return self._engine.memory()

    def close(self) -> None:
        """As the engine's."""
        self._engine.close()
