"""Runs one batch of the worker process: rows of any number of fronts in, answers out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError

from inferd_server.link.layout import Status
from inferd_server.link.receiving import WorkerLink
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.table import Table, TableDecision
from inferd_server.worker.batch import Observer, check_rows
from inferd_server.worker.waiting import Waiting

log = logging.getLogger(__name__)
ORDER = ("start", "lane", "link")
"""The last one first: neighbours in memory become neighbours in the batch."""


class TableRunner:
    """Runs the decisions of one model on one engine, on the thread that owns the engine."""

    def __init__(
        self,
        engine: Engine,
        waiting: Waiting,
        links: Mapping[int, WorkerLink],
        batched: bool,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._waiting = waiting
        self._links = links
        self._inputs = [tensor.name for tensor in engine.signature.inputs]
        self._outputs = [tensor.name for tensor in engine.signature.outputs]
        self._batched = batched
        self._observer = observer
        self._clock = clock

    def __call__(self, decision: TableDecision) -> None:
        """Answer what is dropped, then run and answer the rest.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        self._drop(decision.drop)
        if not len(decision.run):
            return
        run = decision.run[np.lexsort([decision.run[name] for name in ORDER])]
        self._run(run, decision.waited)

    def _drop(self, requests: Table) -> None:
        if len(requests):
            gone = self._waiting.cancelled(requests)
            self._waiting.refuse(requests[gone], Status.CANCELLED)
            self._waiting.refuse(requests[~gone], Status.EXPIRED)

    def _run(self, requests: Table, waited: float) -> None:
        taken = self._clock()
        try:
            outputs, run = self._execute(requests, taken, waited)
        except BaseException as error:
            self._failed(requests, error)
            return
        self._answer(requests, outputs, taken, run)

    def _execute(
        self, requests: Table, taken: float, waited: float
    ) -> tuple[tuple[Array, ...], Execution]:
        self._waiting.begin(requests)
        views = self._gather(requests)
        if not self._batched:
            views = tuple(view.reshape(view.shape[1:]) for view in views)
        gathered = self._clock()
        rows = int(requests["rows"].sum())
        outputs = self._engine.run(dict(zip(self._inputs, views, strict=True)), {}, rows)
        if self._batched:
            check_rows(outputs, rows)
        run = Execution(rows, waited, gathered - taken, self._clock() - gathered)
        self._observer(run)
        return tuple(outputs[name] for name in self._outputs), run

    def _gather(self, requests: Table) -> tuple[Array, ...]:
        """Return every input of a batch as one contiguous array; a view where they adjoin."""
        parts = []
        for part in pieces(requests):
            start, end = int(part["start"][0]), int(part["start"][-1] + part["rows"][-1])
            parts.append([array[start:end] for array in self._waiting.arrays(part[0])])
        if len(parts) == 1:
            return tuple(parts[0])
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def _answer(
        self, requests: Table, outputs: tuple[Array, ...], taken: float, run: Execution
    ) -> None:
        row = 0
        for link in np.unique(requests["link"]):
            own = requests[requests["link"] == link]
            end = row + int(own["rows"].sum())
            rows = tuple(array[row:end] for array in outputs) if self._batched else outputs
            self._links[int(link)].answer(own, rows, taken, run)
            row = end

    def _failed(self, requests: Table, error: BaseException) -> None:
        where = {"requests": len(requests), "error": str(error)}
        planned = isinstance(error, EngineError)
        log.error("a batch failed", extra=where, exc_info=None if planned else error)
        ends = not isinstance(error, Exception) or (isinstance(error, EngineError) and error.fatal)
        if ends or len(requests) == 1:
            self._waiting.refuse(requests, Status.FAILED)
        if ends:
            raise error
        if len(requests) > 1:
            self._run_apart(requests)

    def _run_apart(self, requests: Table) -> None:
        """Run each request alone: one must not fail its neighbours."""
        for index in range(len(requests)):
            alone = requests[index : index + 1]
            try:
                if self._waiting.cancelled(alone)[0] or alone["deadline"][0] <= self._clock():
                    self._drop(alone)
                else:
                    self._run(alone, 0.0)
            except BaseException:
                # That one has its answer, and the instance ends.
                self._waiting.refuse(requests[index + 1 :], Status.FAILED)
                raise


def pieces(requests: Table) -> Iterator[Table]:
    """Split requests, sorted by ORDER, where one does not begin where the last one ends."""
    before, after = requests[:-1], requests[1:]
    adjoin = (
        (before["link"] == after["link"])
        & (before["lane"] == after["lane"])
        & (before["start"] + before["rows"] == after["start"])
    )
    edges = [0, *(np.flatnonzero(~adjoin) + 1).tolist(), len(requests)]
    for start, end in pairwise(edges):
        yield requests[start:end]
