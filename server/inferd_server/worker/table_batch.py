"""Runs batches of the worker process: rows of any number of fronts in, answers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Engine

from inferd_server.errors import (
    NOTHING,
    InferdError,
    InvalidInput,
    SequenceNotFound,
    TooManySequences,
)
from inferd_server.link.layout import Status
from inferd_server.link.receiving import WorkerLink
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.table import Table
from inferd_server.worker.running import Batch, Clock, Observer, Running
from inferd_server.worker.waiting import Waiting

STATUSES: Mapping[type, Status] = {
    SequenceNotFound: Status.NO_SEQUENCE,
    TooManySequences: Status.MANY_SEQUENCES,
    InvalidInput: Status.BAD_INPUT,
}
ORDER = ("start", "lane", "link")
"""The last one first: neighbours in memory become neighbours in the batch."""


class TableRunner(Running[Table]):
    """Runs tables, whose rows are in the memory of links."""

    def __init__(
        self,
        engine: Engine,
        waiting: Waiting,
        links: Mapping[int, WorkerLink],
        batched: bool,
        observer: Observer,
        clock: Clock,
        about: Mapping[str, object] = NOTHING,
    ) -> None:
        super().__init__(engine, batched, observer, clock, about)
        self._waiting = waiting
        self._links = links
        self._outputs = [tensor.name for tensor in engine.signature.outputs]

    def _arranged(self, requests: Table) -> Table:
        arranged: Table = requests[np.lexsort([requests[name] for name in ORDER])]
        return arranged

    def _begun(self, requests: Table) -> None:
        self._waiting.begin(requests)

    def _tried(self, requests: Table) -> bool:
        return self._waiting.tried(requests)

    def _behind(self) -> int:
        return self._waiting.rows

    def _arrived(self, requests: Table) -> float:
        return float(requests["arrived"][0])

    def _rows(self, requests: Table) -> int:
        return int(requests["rows"].sum())

    def _views(self, requests: Table) -> tuple[Array, ...]:
        parts = []
        for part in pieces(requests):
            start, end = int(part["start"][0]), int(part["start"][-1] + part["rows"][-1])
            parts.append([array[start:end] for array in self._waiting.arrays(part[0])])
        if len(parts) == 1:
            return tuple(parts[0])
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def _answer(self, batch: Batch[Table], outputs: Mapping[str, Array], run: Execution) -> None:
        arrays = tuple(outputs[name] for name in self._outputs)
        requests = batch.requests
        row = 0
        for link in np.unique(requests["link"]):
            own = requests[requests["link"] == link]
            end = row + int(own["rows"].sum())
            rows = tuple(array[row:end] for array in arrays) if self._batched else arrays
            self._links[int(link)].answer(own, rows, batch.taken, run)
            row = end

    def _drop(self, requests: Table) -> None:
        if len(requests):
            gone = self._waiting.cancelled(requests)
            self._waiting.refuse(requests[gone], Status.CANCELLED)
            self._waiting.refuse(requests[~gone], Status.EXPIRED)

    def _drop_dead(self, requests: Table) -> Table:
        dead = self._waiting.cancelled(requests) | (requests["deadline"] <= self._clock())
        self._drop(requests[dead])
        living: Table = requests[~dead]
        return living

    def _halves(self, requests: Table) -> tuple[Table, Table]:
        arrived = requests[np.argsort(requests["arrived"], kind="stable")]
        middle = len(arrived) // 2
        return arrived[:middle], arrived[middle:]

    def _fail(self, requests: Table, error: InferdError | None = None) -> None:
        status = STATUSES.get(type(error), Status.FAILED)
        self._waiting.refuse(requests, status, str(error) if status is Status.BAD_INPUT else "")

    def _apart(self, requests: Table) -> Iterator[Table]:
        for index in np.argsort(requests["arrived"], kind="stable"):
            yield requests[index : index + 1]


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
