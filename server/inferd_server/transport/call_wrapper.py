"""A call around a call, for whoever looks at its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.tensors import Buffer

from inferd_server.errors import InferdError
from inferd_server.transport.call import Call, Metadata


class CallWrapper:
    """Passes everything on to a call; what is built on it changes the rest."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def request(self) -> bytes:
        """Of the call."""
        return self._call.request

    @property
    def stream(self) -> object | None:
        """Of the call."""
        return self._call.stream

    @property
    def metadata(self) -> Metadata:
        """Of the call."""
        return self._call.metadata

    @property
    def peer(self) -> str:
        """Of the call."""
        return self._call.peer

    @property
    def certificate_names(self) -> Sequence[str]:
        """Of the call."""
        return self._call.certificate_names

    @property
    def deadline(self) -> float | None:
        """Of the call."""
        return self._call.deadline

    @property
    def cancelled(self) -> bool:
        """Of the call."""
        return self._call.cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Of the call."""
        self._call.on_cancel(callback)

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Of the call."""
        self._call.send_initial_metadata(metadata)

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Of the call."""
        self._call.reply(parts, trailing)

    def fail(self, error: InferdError) -> None:
        """Of the call."""
        self._call.fail(error)
