"""Batches of one engine that overlap: the next one begins while the last one is under way."""

from __future__ import annotations

from collections import deque
from typing import Any

from inferd_server.batching.decision import Decision
from inferd_server.batching.fair_share import Turn
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Batch, R, Runner


class Overlap:
    """Runs a queue until it ends, with up to two batches under way.

    A second one begins early only if it is full: what is not will grow while the first one runs.
    """

    def __init__(self, queue: BatchQueue[R], runner: Runner[R], turn: Turn | None = None) -> None:
        """Prepare.

        Args:
            queue: what waits.
            runner: of an engine that overlaps.
            turn: the runner's; None: all engines may run at a time.
        """
        self._queue: BatchQueue[Any] = queue
        self._runner: Runner[Any] = runner
        self._turn = turn
        self._begun: deque[Batch[Any]] = deque()

    def run(self) -> None:
        """Return once the queue is closed and empty.

        Raises:
            EngineError: a fatal one, after every request that was taken was answered.
        """
        try:
            while (decision := self._queue.take(turn=self._turn)) is not None:
                self._begin(decision)
                while self._begun:
                    self._advance()
        except BaseException:
            for batch in self._begun:
                self._runner.abandon(batch)
            raise

    def _advance(self) -> None:
        following = None
        if self._turn is None or not self._turn.contended():
            following = self._queue.take_full(self._runner.ends(self._begun[-1]))
        if following is not None:
            self._begin(following)
        self._runner.finish(self._begun.popleft())

    def _begin(self, decision: Decision[Any]) -> None:
        batch = self._runner.begin(decision)
        if batch is not None:
            self._begun.append(batch)
