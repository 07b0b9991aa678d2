"""Streams over gRPC core's operations."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.call import Metadata, Receiver, StreamHandler
from inferd_server.transport.completion_queue.calls import end
from inferd_server.transport.completion_queue.core import CoreCall, Event

log = logging.getLogger(__name__)


class Outbox:
    """What a stream sends: one message under way at a time, the status last."""

    def __init__(self, core: CoreCall, written: Callable[[], None]) -> None:
        self._core = core
        self._written = written
        self._messages: deque[bytes] = deque()
        self._begun = False
        self._busy = False
        self._ended = False
        self._closed = False
        self._error: InferdError | None = None
        self._lock = threading.Lock()

    def send(self, message: bytes) -> None:
        """Send a message after those before it; ignored once the stream is over."""
        with self._lock:
            if not (self._ended or self._closed):
                self._messages.append(message)
                self._advance()

    def end(self, error: InferdError | None) -> None:
        """Send the status after all messages; the first one counts."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._error = error
                self._advance()

    def close(self) -> None:
        """The call is over: nothing can be sent."""
        with self._lock:
            self._closed = True
            self._messages.clear()

    def _advance(self) -> None:
        if self._busy or self._closed:
            return
        if self._messages:
            self._busy = True
            first, self._begun = not self._begun, True
            self._core.send(self._messages.popleft(), first, self._sent)
        elif self._ended:
            # Stays busy: nothing may follow the status.
            self._busy = True
            end(self._core, self._error, first=not self._begun, watched=True)

    def _sent(self, event: Event) -> None:
        with self._lock:
            self._busy = False
            if not event.success:
                self._closed = True
            self._advance()
        self._written()


class QueueStream:
    """A stream: receives one message at a time, never too far ahead of what is written."""

    def __init__(self, core: CoreCall, max_messages: int) -> None:
        self.cancelled = False
        self._core = core
        self._outbox = Outbox(core, self._written)
        self._receiver: Receiver | None = None
        self._unanswered = 0
        self._max_messages = max_messages
        self._paused = False

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

    def serve(self, handler: StreamHandler, over: Callable[[Receiver], None]) -> Receiver | None:
        """Hand the stream to its handler; `over` is told when the call ends."""
        try:
            receiver = self._receiver = handler(self)
        except Exception:
            log.exception("a handler failed")
            end(self._core, EngineFailure(), first=True, watched=False)
            return None

        def closed(cancelled: bool) -> None:
            self.cancelled = cancelled
            self._outbox.close()
            over(receiver)
            receiver.cancel()

        self._core.watch_close(closed)
        self._core.receive(self._received)
        return receiver

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message; the parts are copied before this returns."""
        self._outbox.send(b"".join(parts))

    def finish(self) -> None:
        """End the call with OK after everything that was sent."""
        self._outbox.end(None)

    def fail(self, error: InferdError) -> None:
        """End the call with a status after everything that was sent."""
        self._outbox.end(error)

    def _received(self, _: Event) -> None:
        try:
            self._hand_over(self._core.received())
        except Exception:
            log.exception("a stream's receiver failed")
            self.fail(EngineFailure())

    def _hand_over(self, message: bytes | None) -> None:
        assert self._receiver is not None
        if message is None:
            if not self.cancelled:
                self._receiver.half_closed()
            return
        self._unanswered += 1
        self._receiver.message(message)
        self._paused = self._unanswered >= self._max_messages
        if not self._paused:
            self._core.receive(self._received)

    def _written(self) -> None:
        # On the polling thread, as all of the receiving side, so that no lock is needed.
        # A stream that sends more than it was asked must not gain read-ahead by it.
        self._unanswered = max(0, self._unanswered - 1)
        if self._paused and self._unanswered < self._max_messages:
            self._paused = False
            self._core.receive(self._received)
