"""Requests that a worker has, as the front that sent them keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inferd_server.batching.job import Job


class LinkTarget(Protocol):
    """A model version in the worker, as the link needs to know it."""

    @property
    def number(self) -> int:
        """The worker's number of it."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def version(self) -> int:
        """Of the model."""

    @property
    def closed(self) -> bool:
        """True once it takes no more."""

    @property
    def returning(self) -> bool:
        """True if its worker died, and the next one is expected to serve it."""

    @property
    def batched(self) -> bool:
        """True if outputs have a row for each row of the request."""

    @property
    def outputs(self) -> Sequence[tuple[str, np.dtype[Any]]]:
        """Name and dtype of every output, in the order of the signature."""

    def left(self, request: Job) -> None:
        """Note that the worker answered a request of a stream."""


@dataclass(frozen=True, slots=True)
class History:
    """How often a request was sent to a worker, and how often it began to run there."""

    sent: int = 0
    begun: int = 0

    @property
    def suspect(self) -> bool:
        """True if a worker died while it ran."""
        return self.begun > 0


NEW = History()


# Not frozen, which would cost more for every request.
@dataclass(slots=True)
class PendingRequest:
    """A request that the worker has."""

    ticket: int
    job: Job
    target: LinkTarget
    history: History


@dataclass(frozen=True, slots=True)
class Lost:
    """A request whose worker died before it was answered."""

    job: Job
    target: LinkTarget
    history: History
    """This time included."""
    ran: bool = False
    """True if it ran when the worker died."""
