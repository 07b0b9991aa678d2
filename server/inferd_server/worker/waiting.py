"""The requests that wait for one model in the worker process, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from inferd.tensors import Array

from inferd_server.link.layout import Status
from inferd_server.link.receiving import WAITING, WorkerLink
from inferd_server.scheduler.decision import Limits
from inferd_server.scheduler.table import Table, TableDecision, next_table

Links = Mapping[int, WorkerLink]
LAST_KEY = 2**32 - 1


class Waiting:
    """Requests of one model, in the order in which they are due. Used under the intake's lock."""

    def __init__(self, links: Links, dtypes: Sequence[np.dtype[Any]], limits: Limits) -> None:
        self.table: Table = np.empty(0, WAITING)
        self.limits = limits
        self._links = links
        self._dtypes = tuple(dtypes)
        self._keys: dict[tuple[tuple[int, ...], ...], int] = {}
        # Keys of requests that share no run, counted down so that they meet no shape's.
        self._alone = LAST_KEY

    @property
    def rows(self) -> int:
        """Rows that wait now."""
        return int(self.table["rows"].sum())

    def add(self, requests: Table) -> None:
        """Take requests of one link in, each at the place where it is due."""
        for lane in np.unique(requests["lane"]) if len(requests) > 1 else requests["lane"]:
            chosen = requests["lane"] == lane
            first = requests[chosen][0]
            requests["key"][chosen] = self._key(first)
        if self._links[int(requests["link"][0])].suspects:
            self._part(requests)
        requests["due"] = requests["arrived"] + requests["level"] * self.limits.head_start
        mixed = len(self.table) and requests["due"][0] < self.table["due"][-1]
        self.table = np.concatenate([self.table, requests]) if len(self.table) else requests
        if mixed or self.limits.levels > 1 or len(np.unique(self.table["link"])) > 1:
            self.table = self.table[np.argsort(self.table["due"], kind="stable")]

    def decide(self, now: float) -> TableDecision:
        """Take out what should run or be dropped now."""
        decision = next_table(self.table, self.cancelled(self.table), now, self.limits)
        self.table = decision.keep
        return decision

    def decide_full(self, now: float) -> TableDecision | None:
        """Take out a batch that more requests would not make larger, if there is one."""
        if self.rows < self.limits.max_rows:
            return None
        decision = next_table(self.table, self.cancelled(self.table), now, self.limits)
        if not decision.full:
            return None
        self.table = decision.keep
        return decision

    def cancelled(self, requests: Table) -> Array:
        """Tell of each request whether its caller went away."""
        gone = np.zeros(len(requests), dtype=bool)
        for link in np.unique(requests["link"]):
            chosen = requests["link"] == link
            gone[chosen] = self._links[int(link)].cancelled(requests["ticket"][chosen])
        return gone

    def tried(self, requests: Table) -> bool:
        """True if a batch is of trials alone. They come one by one: the first tells most."""
        return all(
            self._links[int(request["link"])].trials(request["ticket"].reshape(1))[0]
            for request in requests
        )

    def begin(self, requests: Table) -> None:
        """Note that requests run from now on."""
        links = requests["link"]
        first = links.item(0)
        if (links == first).all():
            self._links[first].begin(requests)
            return
        for link in np.unique(links):
            self._links[int(link)].begin(requests[links == link])

    def forget(self, link: int) -> None:
        """Drop the requests of a front that is gone."""
        self.table = self.table[self.table["link"] != link]

    def refuse(self, requests: Table, status: Status, text: str = "") -> None:
        """Answer requests without outputs, with a sentence where the status says too little."""
        for link in np.unique(requests["link"]):
            self._links[int(link)].refuse(requests[requests["link"] == link], status, text)

    def arrays(self, request: np.void) -> tuple[Array, ...]:
        """Return the arrays that a request's inputs are rows of."""
        return self._links[int(request["link"])].rows(request, self._dtypes)

    def _part(self, requests: Table) -> None:
        """Give requests of one link that are to run alone a key of their own."""
        link = self._links[int(requests["link"][0])]
        for index in np.flatnonzero(link.alone(requests["ticket"])):
            requests["key"][index] = self._alone
            self._alone -= 1

    def _key(self, request: np.void) -> int:
        shapes = tuple(array.shape[1:] for array in self.arrays(request))
        return self._keys.setdefault(shapes, len(self._keys))
