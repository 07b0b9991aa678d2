"""Unary calls over gRPC core's operations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import grpc
from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.call import Metadata, UnaryHandler
from inferd_server.transport.completion_queue.core import CoreCall
from inferd_server.transport.status import ERROR_KEY, sentence, status_code

log = logging.getLogger(__name__)


class QueueCall:
    """A unary call. The core's lock guards it: core takes each kind of operation once."""

    __slots__ = (
        "_core", "_handler", "_on_cancel", "_waits", "_watched", "answered", "cancelled", "request",
    )  # fmt: skip

    def __init__(
        self, core: CoreCall, handler: UnaryHandler, waits: Callable[[QueueCall], None]
    ) -> None:
        """Receive the request and handle it.

        Args:
            core: the call.
            handler: called with this, once the request is there.
            waits: gets calls that the handler left open.
        """
        self.request = b""
        self.cancelled = False
        self.answered = False
        self._core = core
        self._handler = handler
        self._waits = waits
        self._watched = False
        self._on_cancel: Callable[[], None] | None = None
        core.receive(self._received)

    @property
    def metadata(self) -> Metadata:
        """Invocation metadata, in the order received."""
        return self._core.metadata

    @property
    def peer(self) -> str:
        """The caller's address, such as "ipv4:127.0.0.1:4711"."""
        return self._core.peer

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds, or None for a call without a deadline."""
        return self._core.deadline()

    def watch(self) -> None:
        """Watch for cancellation, which costs an event: only for calls that have to wait."""
        with self._core.lock:
            if self.answered or self._watched:
                return
            self._watched = True
            self._core.watch_close(self._closed)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the caller goes away before the answer; at once if it has."""
        # Without the lock, which nearly all calls would take for nothing: whichever of this
        # thread and `_closed` comes second sees what the first one set, and the lock decides
        # who calls back.
        self._on_cancel = callback
        if self.cancelled:
            self._call_back()

    def reply(self, parts: Sequence[Buffer]) -> None:
        """Answer; the parts are copied before this returns."""
        message = b"".join(parts)
        core = self._core
        with core.lock:
            if not self.answered:
                self.answered = True
                # It refers to this call: both would stay until the next garbage collection.
                self._on_cancel = None
                core.reply(message, self._watched)

    def fail(self, error: InferdError) -> None:
        """Answer with a status."""
        with self._core.lock:
            if not self.answered:
                self.answered = True
                self._on_cancel = None
                end(self._core, error, first=True, watched=self._watched)

    def _received(self, _: object) -> None:
        message = self._core.received()
        # None: the caller went away, or its message was refused, before it was complete.
        if message is None:
            return
        self.request = message
        try:
            self._handler(self)
        except Exception:
            log.exception("a handler failed")
            self.fail(EngineFailure())
        if not self.answered:
            self._waits(self)

    def _closed(self, cancelled: bool) -> None:
        with self._core.lock:
            if not cancelled or self.answered:
                return
            self.cancelled = True
        self._call_back()

    def _call_back(self) -> None:
        with self._core.lock:
            callback, self._on_cancel = self._on_cancel, None
        if callback is not None:
            callback()


def end(core: CoreCall, error: InferdError | None, *, first: bool, watched: bool) -> None:
    """Send the status of a call: OK, or that of an error."""
    if error is None:
        core.end(grpc.StatusCode.OK, "", (), first=first, watched=watched)
        return
    metadata = ((ERROR_KEY, type(error).__name__),)
    core.end(status_code(error), sentence(error), metadata, first=first, watched=watched)
