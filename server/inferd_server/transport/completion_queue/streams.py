"""Streams over gRPC core's operations."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.call import Metadata, Receiver, Refused, StreamHandler
from inferd_server.transport.completion_queue.calls import end, no_message
from inferd_server.transport.completion_queue.core import CoreCall, Event
from inferd_server.transport.in_flight import ByteBounds, Unanswered, UnsentBytes
from inferd_server.transport.live import Live
from inferd_server.transport.metadata import checked
from inferd_server.transport.status import CallStatus, error_status, given_up, ok_status

log = logging.getLogger(__name__)


class Outbox:
    """What a stream sends: one message under way at a time, the status last."""

    def __init__(
        self,
        core: CoreCall,
        answers: UnsentBytes,
        written: Callable[[], None],
        refused: Callable[[InferdError], None],
    ) -> None:
        self.given_up = False
        self._refused: Callable[[InferdError], None] | None = refused
        self._core = core
        self._answers = answers
        self._written: Callable[[], None] | None = written
        self._messages: deque[bytes] = deque()
        self._begun = False
        self._busy = False
        self._closed = False
        self._status: CallStatus | None = None
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        """True once the status is known, or the call over."""
        return self._status is not None or self._closed

    def begin(self, metadata: Metadata) -> None:
        """Send initial metadata; ignored once anything was sent."""
        with self._lock:
            if not (self._begun or self._status or self._closed):
                self._begun = True
                self._core.begin(metadata)

    def send(self, message: bytes) -> None:
        """Send a message after those before it; ignored once the stream is over.

        One that finds no room ends the stream.
        """
        with self._lock:
            if self._status or self._closed:
                return
            with self._core.lock:
                room = self._answers.take(len(message))
            if room:
                self._messages.append(message)
                self._advance()
            else:
                self._fail(self._answers.refusal(len(message)))

    def fail(self, error: InferdError) -> None:
        """Send the status of an error after all messages; the first status counts."""
        with self._lock:
            if not (self._status or self._closed):
                self._fail(error)

    def end(self, how: CallStatus) -> None:
        """Send the status after all messages; the first one counts."""
        with self._lock:
            if self._status is None:
                self._status = how
                self._advance()

    def give_up(self) -> None:
        """End because the server stops, unless the end is under way."""
        with self._lock:
            if not (self._status or self._closed):
                self.given_up = True
                self._status = error_status(given_up())
                self._advance()

    def close(self) -> None:
        """The call is over: nothing can be sent. On the polling thread."""
        with self._lock:
            self._closed = True
            for message in self._messages:
                self._answers.give(len(message))
            self._messages.clear()
            # They refer to the stream, and the stream to this.
            self._written = self._refused = None

    def _fail(self, error: InferdError) -> None:
        if error.reason and self._refused is not None:
            self._refused(error)
        self._status = error_status(error)
        self._advance()

    def _advance(self) -> None:
        if self._busy or self._closed:
            return
        if self._messages:
            self._busy = True
            first, self._begun = not self._begun, True
            message = self._messages.popleft()
            self._core.send(message, first, partial(self._sent, len(message)))
        elif self._status is not None:
            # Stays busy: nothing may follow the status.
            self._busy = True
            end(self._core, self._status, first=not self._begun, watched=True)

    def _sent(self, size: int, event: Event) -> None:
        self._answers.give(size)
        with self._lock:
            self._busy = False
            if not event.success:
                self._closed = True
            self._advance()
            written = self._written
        if written is not None:
            written()


class QueueStream:
    """A stream: receives one message at a time, never too far ahead of what is written."""

    def __init__(
        self, core: CoreCall, max_messages: int, bounds: ByteBounds, refused: Refused
    ) -> None:
        self.cancelled = False
        self.deadline = core.deadline
        """Monotonic seconds, or None for a call without a deadline."""
        self._core = core
        self._outbox = Outbox(core, bounds.answers, self._written, partial(refused, self))
        self._receiver: Receiver | None = None
        self._bounds = bounds
        self._refused = refused
        self._unanswered = Unanswered(bounds.requests, max_messages)
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
    def certificate_names(self) -> Sequence[str]:
        """Names in the certificate that the caller showed; () without one."""
        return self._core.certificate_names

    @property
    def unsent(self) -> UnsentBytes:
        """Where the bytes of its answers count."""
        return self._bounds.answers

    def serve(self, handler: StreamHandler, live: Live[QueueStream]) -> None:
        """Hand the stream to its handler; a member of `live` until it is over."""
        try:
            receiver = self._receiver = handler(self)
        except Exception:
            log.exception("a handler failed")
            end(self._core, error_status(EngineFailure()), first=True, watched=False)
            return

        def closed(cancelled: bool) -> None:
            self.cancelled = cancelled or self._outbox.given_up
            self._outbox.close()
            self._unanswered.over()
            live.remove(self)
            # Nobody who still holds the stream holds the call, or who received its messages.
            self._receiver = None
            self._core.drop()
            receiver.cancel()

        self._core.watch_close(closed)
        live.add(self)
        self._core.receive(self._received)

    def drain(self) -> None:
        """Tell the receiver that the server is stopping."""
        receiver = self._receiver
        if receiver is not None:
            receiver.drain()

    def give_up(self) -> None:
        """End the call because the server stops."""
        self._outbox.give_up()

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of everything; ignored the second time, or after a message."""
        self._outbox.begin(checked(metadata))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message; the parts are copied before this returns."""
        self._outbox.send(b"".join(parts))

    def finish(self, trailing: Metadata = ()) -> None:
        """End the call with OK after everything that was sent."""
        self._outbox.end(ok_status(checked(trailing)))

    def fail(self, error: InferdError) -> None:
        """End the call with a status after everything that was sent."""
        self._outbox.fail(error)

    def _received(self, event: Event) -> None:
        try:
            if not event.success:
                # The caller has heard of it from core.
                self._refused(self, no_message(event))
            self._hand_over(self._core.received())
        except Exception:
            log.exception("a stream's receiver failed")
            self.fail(EngineFailure())

    def _hand_over(self, message: bytes | None) -> None:
        if self._receiver is None or self._outbox.ended:
            # Nothing that comes now can be answered, and who called may be forgotten.
            return
        if message is None:
            if not self.cancelled:
                self._receiver.half_closed()
            return
        try:
            message = self._bounds.compression.plain(message)
        except InferdError as error:
            self.fail(error)
            return
        size = len(message)
        if not self._unanswered.received(size):
            self.fail(self._bounds.requests.refusal(size))
            return
        self._receiver.message(message)
        self._paused = self._unanswered.full
        if not self._paused:
            self._core.receive(self._received)

    def _written(self) -> None:
        # On the polling thread, as all of the receiving side, so that no lock is needed.
        self._unanswered.answered()
        if self._paused and not self._unanswered.full:
            self._paused = False
            self._core.receive(self._received)
