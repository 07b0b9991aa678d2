"""The call of the request that runs for all equal ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from inferd.tensors import Buffer

from inferd_server.cache.flight import Asker
from inferd_server.errors import InferdError
from inferd_server.transport.call import Metadata


class LeadOutcome(Protocol):
    """What follows from a leader's answer for those who wait for it."""

    def keep(self, leader: Asker, value: bytes) -> None:
        """Keep the response without its id, which the leader is about to get."""

    def share(self, leader: Asker, value: bytes) -> None:
        """Answer those who wait."""

    def failed(self, leader: Asker, error: InferdError) -> None:
        """Take the error that the leader was answered with."""


class Lead:
    """A leader's call: what answers it answers its followers, too."""

    __slots__ = ("_outcome", "asker")

    def __init__(self, asker: Asker, outcome: LeadOutcome) -> None:
        """Speak for a leader; `outcome` sees to the others."""
        self.asker = asker
        self._outcome = outcome

    @property
    def request(self) -> bytes:
        """The leader's message."""
        return self.asker.call.request

    @property
    def stream(self) -> object | None:
        """The leader's."""
        return self.asker.call.stream

    @property
    def metadata(self) -> Metadata:
        """Of the leader's call."""
        return self.asker.call.metadata

    @property
    def certificate_names(self) -> Sequence[str]:
        """The leader's."""
        return self.asker.call.certificate_names

    @property
    def peer(self) -> str:
        """The leader."""
        return self.asker.call.peer

    @property
    def deadline(self) -> float | None:
        """Of the leader alone: its followers have their own."""
        return self.asker.call.deadline

    @property
    def cancelled(self) -> bool:
        """True once the leader went away."""
        return self.asker.call.cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the leader goes away before its answer; at once if it has."""
        self.asker.call.on_cancel(callback)

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata to the leader."""
        self.asker.call.send_initial_metadata(metadata)

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer the leader, and all who follow; the last part is the leader's id."""
        value = b"".join(parts[:-1])
        # Kept first: who has the answer and asks again finds it.
        self._outcome.keep(self.asker, value)
        try:
            self.asker.call.reply((value, parts[-1]), trailing)
        finally:
            self._outcome.share(self.asker, value)

    def fail(self, error: InferdError) -> None:
        """Answer the leader with an error, and see to those who follow."""
        try:
            self.asker.call.fail(error)
        finally:
            self._outcome.failed(self.asker, error)
