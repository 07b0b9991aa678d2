"""Lines whose requests come from other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inferd_engines.engine import Engine, Registering, Signature

from inferd_server.errors import NOTHING
from inferd_server.link.receiving import WorkerLink
from inferd_server.repository.line import Line, Observer, Runner
from inferd_server.scheduler.decision import Limits
from inferd_server.worker.intake import Intake, TableQueue
from inferd_server.worker.table_batch import TableRunner


class TableStation:
    """Requests of all fronts."""

    def __init__(
        self,
        intake: Intake,
        links: Mapping[int, WorkerLink],
        clock: Callable[[], float],
        settle: Callable[[], None],
    ) -> None:
        """Serve links.

        Args:
            intake: reads them.
            links: by the index of their front.
            clock: monotonic seconds.
            settle: returns once every front knows what the worker told before.
        """
        self._intake = intake
        self._links = links
        self._clock = clock
        self.settle = settle

    def line(self, signature: Signature, limits: Limits) -> TableQueue:
        """Return a queue that the fronts fill."""
        return self._intake.open([tensor.dtype for tensor in signature.inputs], limits)

    def runner(
        self,
        engine: Engine,
        line: Line,
        batched: bool,
        observer: Observer,
        about: Mapping[str, object] = NOTHING,
    ) -> Runner:
        """Return a runner of tables, whose engine reads them in place if it can."""
        assert isinstance(line, TableQueue)
        if isinstance(engine, Registering):
            for link in self._links.values():
                engine.register(link.inputs)
        return TableRunner(engine, line.waiting, self._links, batched, observer, self._clock, about)

    def number(self, line: Line) -> int:
        """Return what the fronts write into their requests."""
        assert isinstance(line, TableQueue)
        return line.number
