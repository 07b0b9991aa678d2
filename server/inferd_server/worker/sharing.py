"""An engine that runs when it is its model's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inferd_engines.delegate import Delegate
from inferd_engines.engine import Array, Engine, Overlapping

from inferd_server.scheduler.turns import Member, Turns


class SharingEngine(Delegate):
    """Waits for its turn before each run."""

    def __init__(
        self, engine: Engine, turns: Turns, member: Member, clock: Callable[[], float]
    ) -> None:
        """Share an engine.

        Args:
            engine: opened.
            turns: of all models of this process.
            member: of the engine's model.
            clock: monotonic seconds.
        """
        super().__init__(engine)
        self._turns = turns
        self._member = member
        self._clock = clock

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's, when its turn has come."""
        self._turns.take(self._member)
        start = self._clock()
        try:
            return super().run(inputs, outputs, rows)
        finally:
            self._turns.give_back(self._member, self._clock() - start)


class OverlappingSharingEngine(SharingEngine):
    """The same for an engine that runs in halves."""

    def __init__(
        self, engine: Engine, turns: Turns, member: Member, clock: Callable[[], float]
    ) -> None:
        super().__init__(engine, turns, member, clock)
        assert isinstance(engine, Overlapping)
        self._halves: Overlapping = engine
        self._under_way = 0
        # Until here the engine's time is charged to runs that have ended.
        self._charged = 0.0

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Any:
        """As the engine's; waits for a turn unless a run of it is under way."""
        if self._under_way:
            self._turns.take_beside(self._member)
        else:
            self._turns.take(self._member)
            self._charged = self._clock()
        try:
            begun = self._halves.begin(inputs, rows)
        except BaseException:
            self._turns.give_back(self._member, 0.0)
            raise
        self._under_way += 1
        return begun

    def finish(self, begun: Any, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """As the engine's; the turn ends with the last run that is under way."""
        try:
            return self._halves.finish(begun, outputs)
        finally:
            self._under_way -= 1
            now = self._clock()
            self._turns.give_back(self._member, now - self._charged)
            self._charged = now

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """As the engine's, within the turn of a run that is under way, or one of its own."""
        if not self._under_way:
            return super().run(inputs, outputs, rows)
        return self._engine.run(inputs, outputs, rows)


def shared(engine: Engine, turns: Turns, member: Member, clock: Callable[[], float]) -> Engine:
    """Return an engine that waits for its turn; the same one where all may run."""
    if not turns.concurrent:
        return engine
    kind = OverlappingSharingEngine if isinstance(engine, Overlapping) else SharingEngine
    return kind(engine, turns, member, clock)
