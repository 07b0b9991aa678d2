"""A request of a front, as it waits and runs in the worker."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from inferd.tensors import Array

from inferd_server.errors import InferdError
from inferd_server.processes.link.layout import CANCELLED, TRIAL

if TYPE_CHECKING:
    from inferd_server.processes.link.worker_end import WorkerLink


class LinkRequest:
    """A request of a front, as it waits and runs in the worker."""

    __slots__ = (
        "arrays", "arrived", "deadline", "delay_at", "epoch", "key", "level", "model", "place",
        "refused", "rows", "sender", "sequence", "start", "ticket",
    )  # fmt: skip

    stream = None

    def __init__(
        self,
        sender: WorkerLink,
        epoch: int,
        ticket: int,
        place: int,
        model: int,
        arrays: tuple[Array, ...] | None,
        key: Hashable,
        start: int,
        rows: int,
        arrived: float,
        deadline: float,
        level: int,
        sequence: int = 0,
        delay_at: float = float("inf"),
    ) -> None:
        """Keep a record of the ring.

        Args:
            sender: the link.
            epoch: of the link; after it the front is gone, and its memory another one's.
            ticket: that is like no other of the link.
            place: in flight, of the ticket.
            model: the number of its queue.
            arrays: every input of the lane that the rows are in; None: they cannot be read.
            key: equal for requests whose rows fit into one batch.
            start: the first of its rows.
            rows: how many.
            arrived: monotonic seconds.
            deadline: monotonic seconds; infinite without one.
            level: priority; 0 is the highest.
            sequence: that it is a step of; 0: of none.
            delay_at: monotonic seconds, from when on it waits behind all others; infinite: never.
        """
        self.sender = sender
        self.epoch = epoch
        self.ticket = ticket
        self.place = place
        self.model = model
        self.arrays = arrays
        self.key = key
        self.start = start
        self.rows = rows
        self.arrived = arrived
        self.deadline = deadline
        self.level = level
        self.sequence = sequence
        self.delay_at = delay_at
        self.refused = False
        """True once an error took the place of its outputs."""

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for its outputs: its caller went away, or its front did."""
        sender = self.sender
        gone = sender.epoch != self.epoch or sender.marks[self.place] & CANCELLED != 0
        return gone or self.refused

    @property
    def trial(self) -> bool:
        """True if it is no caller's."""
        return self.sender.marks[self.place] & TRIAL != 0

    def fail(self, error: InferdError) -> None:
        """Answer with an error."""
        self.sender.fail((self,), error)
