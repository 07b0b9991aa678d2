"""gRPC core's server, call and completion queue, through grpcio's Cython layer.

That layer is private: this is the only file that touches it. `TESTED` lists the minor
versions of grpcio that it was tested with, `missing` checks its shape, `selftest` makes a call.

Source: grpcio's own `grpc/_server.py`, which uses the same objects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from inferd_server.transport.call import Metadata
from inferd_server.transport.completion_queue.gate import Gate
from inferd_server.transport.options import ChannelArguments
from inferd_server.transport.tls import text_names

log = logging.getLogger(__name__)

TESTED = ("1.85",)
NAMES = {
    "Server": (
        "add_http2_port", "cancel_all_calls", "destroy", "register_completion_queue",
        "register_method", "request_call", "request_registered_call", "shutdown", "start",
    ),
    "CompletionQueue": ("poll", "shutdown"),
    "Call": ("cancel", "peer", "start_server_batch"),
    "CallDetails": ("deadline", "method"),
    "ReceiveMessageOperation": ("message",),
    "ReceiveCloseOnServerOperation": ("cancelled",),
    "SendInitialMetadataOperation": (),
    "SendMessageOperation": (),
    "SendStatusFromServerOperation": (),
    "CompletionType": ("operation_complete", "queue_timeout"),
    "peer_identities": (),
}  # fmt: skip

Event: TypeAlias = Any
Tag: TypeAlias = Callable[[Event], None]

# Empty operations allocate nothing, so that all calls may share them.
NO_METADATA = cygrpc.SendInitialMetadataOperation((), 0)
OK = cygrpc.SendStatusFromServerOperation(None, 0, b"", 0)
CLOSED = cygrpc.ReceiveCloseOnServerOperation(0)
# An operation keeps a copy of its message for nothing: let go where that is worth another object.
LARGE = 1 << 16
NO_MESSAGE = b""
QUEUE_TIMEOUT = cygrpc.CompletionType.queue_timeout
OPERATION_COMPLETE = cygrpc.CompletionType.operation_complete
UNREAD = 0.75
"""Part of a time without a poll: three of four calls that came meanwhile lay unread for less."""
FOREVER = 1e12
"""Seconds since the epoch from which on a deadline means none."""


def missing() -> list[str]:
    """Return what this file needs of the Cython layer and does not find there."""
    return [
        f"{name}.{attribute}" if attribute else name
        for name, attributes in NAMES.items()
        for attribute in ("", *attributes)
        if not _has(name, attribute)
    ]


def _has(name: str, attribute: str) -> bool:
    found = getattr(cygrpc, name, None)
    return found is not None and (not attribute or hasattr(found, attribute))


def ignore(_: Event) -> None:
    """Tag of operations whose end nobody waits for."""


class CoreCall:
    """One call of gRPC core. Operations may be started from any thread.

    Core counts a call until nobody holds it, so that this lets it go with its last operation;
    nothing is known of it from then on.
    """

    __slots__ = ("_call", "_event", "_gate", "_receiving", "lock")

    def __init__(self, event: Event, gate: Gate) -> None:
        self._event = event
        self._call = event.call
        self._gate = gate
        self._receiving: Any = None
        self.lock = gate.lock
        """Held while an operation starts; may be held around several."""

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Invocation metadata, in the order received."""
        event = self._event
        found: tuple[tuple[str, str | bytes], ...]
        found = () if event is None else event.invocation_metadata
        return found

    @property
    def method(self) -> str:
        """Full path, for a call of a method that was not registered."""
        return str(self._event.call_details.method.decode())

    @property
    def peer(self) -> str:
        """The caller's address, such as "ipv4:127.0.0.1:4711"."""
        call = self._call
        return "" if call is None else str(call.peer().decode())

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Names in the certificate that the caller showed; () without one."""
        call = self._call
        return () if call is None else text_names(cygrpc.peer_identities(call))

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds, or None for a call without a deadline.

        To be asked when the call has just come: core knows when it read it, not when it was sent.
        """
        event = self._event
        wall = FOREVER + 1 if event is None else event.call_details.deadline
        if wall > FOREVER:
            return None
        return float(wall - time.time() + time.monotonic() - self._gate.unread)

    def drop(self) -> None:
        """Let go of a call that is over."""
        self._call = self._event = None

    def receive(self, then: Tag) -> None:
        """Receive one message; `then` finds it with `received`. One at a time."""
        operation = self._receiving = cygrpc.ReceiveMessageOperation(0)
        with self.lock:
            if self._call is not None and self._gate.open:
                self._call.start_server_batch((operation,), then)

    def received(self) -> bytes | None:
        """Return what was received; None at the end of the messages or of the call."""
        message: bytes | None = self._receiving.message()
        self._receiving = None
        return message

    def watch_close(self, then: Callable[[bool], None]) -> None:
        """Tell once when the call is over, and whether it was cancelled; at once if all is over."""
        operation = cygrpc.ReceiveCloseOnServerOperation(0)
        if not self._start((operation,), lambda _: then(operation.cancelled())):
            then(True)

    def begin(self, metadata: Metadata) -> None:
        """Send initial metadata ahead of everything else."""
        self._start((cygrpc.SendInitialMetadataOperation(metadata, 0),), ignore)

    def answer(self, message: bytes, watched: bool, then: Tag) -> None:
        """Send the one message of a unary call, and OK; `then` when it is out or the call over.

        With the lock held.
        """
        send = cygrpc.SendMessageOperation(message, 0)
        end = [NO_METADATA, send, OK] if watched else [NO_METADATA, send, OK, CLOSED]
        if self._finish(end, then) and len(message) > LARGE:
            end[1] = cygrpc.SendMessageOperation(NO_MESSAGE, 0)

    def answer_with(
        self, message: bytes, trailing: Metadata, then: Tag, *, first: bool, watched: bool
    ) -> None:
        """Send what `answer` sends, and metadata; `first` if nothing was sent before."""
        begin = (NO_METADATA,) if first else ()
        send = cygrpc.SendMessageOperation(message, 0)
        status = cygrpc.SendStatusFromServerOperation(trailing, 0, b"", 0)
        close = () if watched else (CLOSED,)
        self._finish([*begin, send, status, *close], then)

    def send(self, message: bytes, first: bool, then: Tag) -> None:
        """Send one message of a stream; `then` hears in its event whether it went out."""
        send = cygrpc.SendMessageOperation(message, 0)
        operations = [NO_METADATA, send] if first else [send]
        self._start(operations, then)
        if len(message) > LARGE:
            operations[-1] = cygrpc.SendMessageOperation(NO_MESSAGE, 0)

    def end(
        self,
        code: grpc.StatusCode,
        text: str,
        metadata: Metadata,
        *,
        first: bool,
        watched: bool,
    ) -> None:
        """Send the status of a call; `first` if nothing was sent before."""
        status = cygrpc.SendStatusFromServerOperation(metadata, code.value[0], text.encode(), 0)
        begin = (NO_METADATA,) if first else ()
        close = () if watched else (CLOSED,)
        with self.lock:
            self._finish([*begin, status, *close], ignore)

    def _start(self, operations: Sequence[Any], tag: Tag) -> bool:
        """Start operations; False if the call is over, or the queue was shut down."""
        with self.lock:
            call = self._call
            if call is None or not self._gate.open:
                return False
            call.start_server_batch(operations, tag)
            return True

    def _finish(self, operations: list[Any], tag: Tag) -> bool:
        """Start the last operations of a call, and let it go. With the lock held.

        False if they are started later, or never.
        """
        call, gate = self._call, self._gate
        self._call = self._event = None
        if call is None or not gate.open:
            return False
        if gate.kept is None:
            call.start_server_batch(operations, tag)
            return True
        gate.kept.append(lambda: call.start_server_batch(operations, tag))
        return False


class CoreServer:
    """gRPC core's server with one completion queue, polled by one thread."""

    def __init__(self, arguments: ChannelArguments) -> None:
        self._server = cygrpc.Server(arguments, False)
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        # A server without a port, whose one use is that its shutdown is an event of the queue.
        self._bell = cygrpc.Server((), False)
        self._bell.register_completion_queue(self._queue)
        self._gate = Gate()
        self.keep_ends, self.release_ends = self._gate.keep, self._gate.release
        self._stopping = False

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind "host:port" and return the port; 0 if it cannot be had."""
        # getattr, because the attribute is private, too, and unknown to the stubs.
        inner = () if credentials is None else (getattr(credentials, "_credentials"),)  # noqa: B009
        try:
            return int(self._server.add_http2_port(address.encode(), *inner))
        except RuntimeError:
            return 0

    def start(self, methods: Sequence[str]) -> None:
        """Begin to serve; calls of `methods` can be accepted by name."""
        for method in methods:
            self._server.register_method(method)
        self._server.start()
        self._bell.start()

    def accept(self, method: str | None, then: Callable[[Event, Gate], object]) -> None:
        """Hand over the calls of a registered method, or of all the others, one after the other.

        As what a `CoreCall` is made of.

        Called n times, n calls may arrive before the first is looked at.
        """
        gate = self._gate

        def arrived(event: Event) -> None:
            if event.success:
                arm(arrived)
                then(event, gate)

        arm = self._armed(method)
        arm(arrived)

    def poll(self, wait: float | None) -> bool | None:
        """Run the tag of the next event. False: none came within `wait` seconds; None: over.

        What a tag raises is logged: one event must not end the thread that serves all others.
        """
        # Core sleeps in whole milliseconds, and not at all only for a time long past.
        event = self._queue.poll(None if wait is None else time.time() + wait if wait else 0)
        kind = event.completion_type
        if kind == OPERATION_COMPLETE:
            try:
                event.tag(event)
            except Exception:
                log.exception("an event could not be handled")
            return True
        return False if kind == QUEUE_TIMEOUT else None

    def drain(self, most: int, misses: int) -> bool | None:
        """Run the tags of the events that are there. False: no more; True: perhaps; None: over.

        One loop and no function for each event, of which every request brings three.

        Args:
            most: events.
            misses: looks in a row that find nothing; core looks at one connection at a time, so
                that one says nothing.
        """
        poll, missed = self._queue.poll, 0
        try:
            for _ in range(most):
                event = poll(0)
                kind = event.completion_type
                if kind == OPERATION_COMPLETE:
                    event.tag(event)
                    missed = 0
                elif kind != QUEUE_TIMEOUT:
                    return None
                else:
                    missed += 1
                    if missed >= misses:
                        return False
        except Exception:
            log.exception("an event could not be handled")
        return True

    def away(self, seconds: float) -> None:
        """Note for how long nobody polled: calls that come next may have lain unread."""
        self._gate.unread = UNREAD * seconds

    def on_poller(self, then: Callable[[], None]) -> None:
        """Run something on the polling thread, as an event. Any thread; once only."""
        self._bell.shutdown(self._queue, lambda _: then())

    def stop(self, then: Callable[[], None]) -> None:
        """Refuse new calls; tell when the last one is over.

        On the polling thread, after it found nothing more to do: core drops calls that it
        received and did not hand over, and may leave one hanging that it is just receiving.
        """
        self._stopping = True
        self._server.shutdown(self._queue, lambda _: then())

    def cancel_calls(self) -> None:
        """End what still runs after `stop`."""
        self._server.cancel_all_calls()

    def close(self) -> None:
        """End the queue after `stop` told, or instead of `start`; polls return None at its end."""
        self._gate.close()
        self._server.destroy()
        self._bell.destroy()
        self._queue.shutdown()

    def _armed(self, method: str | None) -> Callable[[Tag], None]:
        """Return what asks core for the next call of a method, as `accept` does."""
        server, queue = self._server, self._queue
        if method is None:
            request = partial(server.request_call, queue, queue)
        else:
            request = partial(server.request_registered_call, queue, queue, method)

        def arm(tag: Tag) -> None:
            # Core refuses with a ValueError that races with its own shutdown.
            if self._stopping:
                return
            try:
                request(tag)
            except ValueError:
                if not self._stopping:
                    raise

        return arm
