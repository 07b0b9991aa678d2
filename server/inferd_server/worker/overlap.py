"""The next batch on its way to the engine while the last one runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from inferd_server.worker.running import Batch, Running


class Source(Protocol):
    """Where decisions come from."""

    def take(self) -> Any:
        """Block for the next decision; None when there will be no more."""

    def take_full(self) -> Any:
        """Return a batch that more requests would not make larger; None if there is none now."""


class Overlap:
    """Runs a queue until it ends, with up to two batches under way.

    A second one begins early only if it is full: what is not will grow while the first one runs.
    """

    def __init__(
        self, queue: Source, runner: Running[Any], early: Callable[[], bool] = lambda: True
    ) -> None:
        """Prepare.

        Args:
            queue: what waits.
            runner: of an engine that overlaps.
            early: whether a second batch may begin now.
        """
        self._queue = queue
        self._runner = runner
        self._early = early
        self._begun: deque[Batch[Any]] = deque()

    def run(self) -> None:
        """Return once the queue is closed and empty.

        Raises:
            EngineError: a fatal one, after every request that was taken was answered.
        """
        try:
            while (decision := self._queue.take()) is not None:
                self._begin(decision)
                while self._begun:
                    self._advance()
        except BaseException:
            for batch in self._begun:
                self._runner.abandon(batch)
            raise

    def _advance(self) -> None:
        following = self._queue.take_full() if self._early() else None
        if following is not None:
            self._begin(following)
        self._runner.finish(self._begun.popleft())

    def _begin(self, decision: Any) -> None:
        batch = self._runner.begin(decision)
        if batch is not None:
            self._begun.append(batch)
