"""Unary calls over gRPC core's operations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError, InvalidInput, ResourceExhausted
from inferd_server.transport.call import Authorize, Metadata, Refused, UnaryHandler
from inferd_server.transport.completion_queue.core import CoreCall, Event
from inferd_server.transport.completion_queue.gate import Gate
from inferd_server.transport.compression import FIRST_BYTES, WINDOW_BITS, Compression
from inferd_server.transport.in_flight import InFlightBytes, UnsentBytes
from inferd_server.transport.live import Live
from inferd_server.transport.metadata import checked
from inferd_server.transport.status import CallStatus, error_status, given_up

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """How the calls of one method are served."""

    handler: UnaryHandler
    """Called with a call once its request is there."""
    requests: InFlightBytes
    """Count a request until it is answered."""
    answers: UnsentBytes
    """Count an answer until it is sent."""
    compression: Compression
    waits: Callable[[QueueCall], None]
    """Gets the calls that the handler left open."""
    refused: Refused
    """Told of an error that has a reason."""


class QueueCall(CoreCall):
    """A unary call. The core's lock guards it: core takes each kind of operation once."""

    stream = None

    __slots__ = (
        "_begun", "_held", "_on_cancel", "_service", "_watched", "answered", "cancelled", "request",
    )  # fmt: skip

    def __init__(self, event: Event, gate: Gate, service: Service) -> None:
        """Wait for `serve`; of core's `event`, its operations guarded by `gate`."""
        CoreCall.__init__(self, event, gate)
        self.request = b""
        self.cancelled = False
        self.answered = False
        self._service = service
        self._held = 0
        self._begun = False
        self._watched = False
        self._on_cancel: Callable[[], None] | None = None

    def serve(self) -> None:
        """Receive the request and handle it."""
        self._service.requests.awaited += 1
        self.receive(self._received)

    def watch(self, live: Live[QueueCall]) -> None:
        """Watch for cancellation, which costs an event: only for calls that have to wait.

        A member of `live` from now until it is over.
        """
        with self.lock:
            if self.answered or self._watched:
                return
            self._watched = True
            self.watch_close(lambda cancelled: self._closed(cancelled, live))
        live.add(self)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the caller goes away before the answer; at once if it has."""
        # Without the lock, which nearly all calls would take for nothing: whichever of this
        # thread and `_closed` comes second sees what the first one set, and the lock decides
        # who calls back.
        self._on_cancel = callback
        if self.cancelled:
            self._call_back()
        elif self.answered:
            # Since then: nobody else would forget it.
            self._on_cancel = None

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of the answer; ignored the second time, or after the answer."""
        metadata = checked(metadata)
        with self.lock:
            if not (self.answered or self._begun):
                self._begun = True
                self.begin(metadata)

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer; the parts are copied before this returns."""
        message = b"".join(parts)
        if trailing:
            trailing = checked(trailing)
        with self.lock:
            if self.answered:
                return
            answers = self._service.answers
            # An empty one has to be sent, too.
            size = len(message) or 1
            if not answers.take(size):
                self.fail(answers.refusal(size))
                return
            self._close()
            # From now on what is held are the bytes of the answer.
            self._held, sent = size, self._sent
            if trailing or self._begun:
                first, watched = not self._begun, self._watched
                self.answer_with(message, trailing, sent, first=first, watched=watched)
            else:
                self.answer(message, self._watched, sent)

    def fail(self, error: InferdError) -> None:
        """Answer with a status."""
        with self.lock:
            if not self.answered:
                if error.reason:
                    # Before the end: then nobody knows who called.
                    self._service.refused(self, error)
                self._close()
                end(self, error_status(error), first=not self._begun, watched=self._watched)

    def give_up(self) -> None:
        """Answer that the server stops, and cancel."""
        with self.lock:
            if self.answered:
                return
            callback = self._on_cancel
            self.fail(given_up())
            self.cancelled = True
        if callback is not None:
            callback()

    def _close(self) -> None:
        """Note that this is answered; with the lock held."""
        self.answered = True
        # It refers to this call: both would stay until the next garbage collection.
        self._on_cancel = None
        # Others may keep the call for a while, and need not keep that.
        self.request = b""
        self._service.requests.give(self._held)
        self._held = 0

    def _sent(self, _: object) -> None:
        self._service.answers.give(self._held)

    def _received(self, event: Event) -> None:
        service = self._service
        requests = service.requests
        requests.awaited -= 1
        message = self.received()
        if message is None:
            # If the caller went away, or core refused its message, this goes nowhere.
            self.fail(no_message(event))
            return
        if message and message[0] in FIRST_BYTES and message[:2] in WINDOW_BITS:
            try:
                message = service.compression.plain(message)
            except InferdError as error:
                self.fail(error)
                return
        size = len(message)
        if not requests.take(size):
            self.fail(requests.refusal(size))
            return
        self._held = size
        self.request = message
        # From here on only the call holds the message, and lets it go with its answer.
        del message
        try:
            service.handler(self)
        except Exception:
            log.exception("a handler failed")
            self.fail(EngineFailure())
        if not self.answered:
            service.waits(self)

    def _closed(self, cancelled: bool, live: Live[QueueCall]) -> None:
        live.remove(self)
        with self.lock:
            if not cancelled or self.answered:
                return
            # An answer has nowhere to go from now on.
            self.answered = True
            self._service.requests.give(self._held)
            self._held = 0
            self.drop()
        self._cancel()

    def _cancel(self) -> None:
        with self.lock:
            self.cancelled = True
        self._call_back()

    def _call_back(self) -> None:
        with self.lock:
            callback, self._on_cancel = self._on_cancel, None
        if callback is not None:
            callback()


def no_message(event: Event) -> InferdError:
    """Return why a call has no message: core refused it, or there was none."""
    if event.success:
        return InvalidInput("the call ended without a message")
    # The caller has heard of it from core.
    text = "the message is larger than max_message_bytes, or none of gRPC's"
    return ResourceExhausted(text, reason="MESSAGE_BYTES")


def admitted(core: CoreCall, authorize: Authorize) -> bool:
    """Decide on a call, and end it if it is refused: none of its messages is received then."""
    try:
        error = authorize(core)
    except Exception:
        log.exception("a call could not be decided on")
        error = EngineFailure()
    if error is not None:
        end(core, error_status(error), first=True, watched=False)
    return error is None


def end(core: CoreCall, how: CallStatus, *, first: bool, watched: bool) -> None:
    """Send the status of a call; `first` if nothing was sent before."""
    core.end(how.code, how.text, how.trailing, first=first, watched=watched)
