"""Calls and streams over gRPC core's operations."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import grpc
from inferd.tensors import Buffer

from inferd_server.errors import InferdError
from inferd_server.transport.call import Metadata, Receiver, StreamHandler, UnaryHandler
from inferd_server.transport.completion_queue.core import CoreCall
from inferd_server.transport.status import ERROR_KEY, status_code


class QueueContext:
    """What is known of a caller before any message."""

    __slots__ = ("_core", "cancelled")

    def __init__(self, core: CoreCall) -> None:
        self._core = core
        self.cancelled = False

    @property
    def metadata(self) -> Metadata:
        """Invocation metadata."""
        return self._core.metadata

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self._core.peer

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""
        return self._core.deadline()


class QueueCall(QueueContext):
    """A unary call."""

    __slots__ = ("_answered", "_handler", "_lock", "_watched", "request")

    def __init__(self, core: CoreCall, handler: UnaryHandler) -> None:
        super().__init__(core)
        self.request = b""
        self._handler = handler
        self._answered = False
        self._watched = False
        self._lock = threading.Lock()
        core.receive(self._received)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back on the polling thread if the caller goes away before the answer.

        Only a call that is told so watches for its end, which costs it an event.
        """

        def closed(cancelled: bool) -> None:
            if cancelled:
                self.cancelled = True
                if not self._answered:
                    callback()

        with self._lock:
            if not self._answered and not self._watched:
                self._watched = True
                self._core.watch_close(closed)

    def reply(self, parts: Sequence[Buffer]) -> None:
        """Answer; the parts are copied before this returns."""
        message = b"".join(parts)
        with self._lock:
            if not self._answered:
                self._answered = True
                self._core.reply(message, self._watched)

    def fail(self, error: InferdError) -> None:
        """Answer with a status."""
        with self._lock:
            if not self._answered:
                self._answered = True
                _end(self._core, error, first=True, watched=self._watched)

    def _received(self, message: bytes | None) -> None:
        # None: the caller went away, or its message was refused, before it was complete.
        if message is not None:
            self.request = message
            self._handler(self)


class QueueStream(QueueContext):
    """A stream: one message being received and one being sent at a time."""

    __slots__ = (
        "_begun", "_end", "_ended", "_lock", "_max_messages", "_outbox", "_paused",
        "_receiver", "_sending", "_unanswered",
    )  # fmt: skip

    def __init__(self, core: CoreCall, handler: StreamHandler, max_messages: int) -> None:
        super().__init__(core)
        self._outbox: deque[bytes] = deque()
        self._sending = False
        self._begun = False
        self._end: InferdError | None = None
        self._ended = False
        self._paused = False
        self._unanswered = 0
        self._max_messages = max_messages
        self._lock = threading.Lock()
        core.watch_close(self._closed)
        self._receiver: Receiver = handler(self)
        core.receive(self._received)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message; the parts are copied before this returns."""
        message = b"".join(parts)
        with self._lock:
            if self._ended or self.cancelled:
                return
            self._outbox.append(message)
            self._advance()

    def finish(self) -> None:
        """End the call with OK after everything that was sent."""
        self._finish(None)

    def fail(self, error: InferdError) -> None:
        """End the call with a status after everything that was sent."""
        self._finish(error)

    def _finish(self, error: InferdError | None) -> None:
        with self._lock:
            if not self._ended:
                self._ended = True
                self._end = error
                self._advance()

    def _advance(self) -> None:
        """Start the next operation of the sending side, if none is under way."""
        if self._sending or self.cancelled:
            return
        if self._outbox:
            self._sending = True
            first, self._begun = not self._begun, True
            self._core.send(self._outbox.popleft(), first, self._sent)
        elif self._ended:
            # Nothing may follow the status.
            self._sending = True
            _end(self._core, self._end, first=not self._begun, watched=True)

    def _sent(self, success: bool) -> None:
        with self._lock:
            self._sending = False
            self._unanswered -= 1
            resume = self._paused and self._unanswered < self._max_messages
            self._paused = self._paused and not resume
            if success:
                self._advance()
        if resume:
            self._core.receive(self._received)

    def _received(self, message: bytes | None) -> None:
        if message is None:
            if not self.cancelled:
                self._receiver.half_closed()
            return
        with self._lock:
            self._unanswered += 1
            self._paused = self._unanswered >= self._max_messages
            paused = self._paused
        self._receiver.message(message)
        if not paused:
            self._core.receive(self._received)

    def _closed(self, cancelled: bool) -> None:
        self.cancelled = self.cancelled or cancelled
        self._receiver.cancel()


def _end(core: CoreCall, error: InferdError | None, *, first: bool, watched: bool) -> None:
    if error is None:
        core.end(grpc.StatusCode.OK, "", (), first=first, watched=watched)
        return
    metadata = ((ERROR_KEY, type(error).__name__),)
    core.end(status_code(error), str(error), metadata, first=first, watched=watched)
